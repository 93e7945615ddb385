"""Fabric is imported without torchmetrics, and nobody is misled by that afterwards."""

import subprocess
import sys

from PIL import Image

CODE = """
import sys
from unveil.fabric import import_fabric
import_fabric()
assert "lightning_fabric" in sys.modules and "torchmetrics" not in sys.modules
from lightning_fabric.utilities.imports import _TORCHMETRICS_GREATER_EQUAL_1_0_0 as recent
assert recent
import torchmetrics
assert torchmetrics.Metric
import_fabric()
assert sys.modules["torchmetrics"] is torchmetrics
"""


def test_torchmetrics_is_itself_after_fabric_was_imported():
    subprocess.run([sys.executable, "-W", "error::ImportWarning", "-c", CODE], check=True)


FAILS = """
import sys
import unveil
try:
    unveil.train("vit", data=sys.argv[1], out=sys.argv[2], quiet=True)
except unveil.UserError as error:
    assert "the same label" in str(error), error
else:
    raise AssertionError("one class is enough")
import torchmetrics.functional
"""


def test_nor_after_a_training_that_could_not_begin(tmp_path):
    (tmp_path / "data" / "only").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / "only" / f"{number}.png")
    subprocess.run([sys.executable, "-c", FAILS, str(tmp_path / "data"), str(tmp_path / "run")], check=True)
