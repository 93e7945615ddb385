"""Fabric is imported without torchmetrics, and nobody is misled by that afterwards."""

import subprocess
import sys

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
