"""torch.export, ONNX and safetensors: what comes out answers as the run does, for batches of any size; what cannot is said."""

import copy
import json
import sys
from pathlib import Path

import pytest
import torch
from exported import CLASSES, KINDS, answer, batch_of, run_of
from safetensors import safe_open
from safetensors.torch import load_file
from serving_runs import write_image, write_manifest, write_video
from torch import Tensor

import unveil
from unveil import cli
from unveil.data import Row
from unveil.errors import UserError
from unveil.exporting.network import Deviation, compare, signals
from unveil.run import load

SOME = ("vit-clips", "mae_st", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("vit", "videomae-finetune")))

#: A recipe of a user's own: convolutions with batch norm, which know no tokens but their map's.
OWN = """
import torch
from torch import nn
from unveil import Data, Recipe
from unveil.data import CenterCrop, Image, ResizeShort
from unveil.encoders import Encoder
from unveil.heads import LinearHead
from unveil.losses import classification
from unveil.objectives import Supervised
from unveil.tokens import Tokens


class Convolutions(Encoder):
    width, depth = 12, 1

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2))

    def mask_grid(self, x):
        return tuple(n // 4 for n in x.shape[2:])

    def forward(self, x, mask=None, layer=None):
        return Tokens.of_map(self.net(x))

    def pool(self, tokens):
        return tokens.mean()

    def layer_of(self, name):
        return 1


class Fixed(Convolutions):
    def forward(self, x, mask=None, layer=None):
        return Tokens.of_map(self.net(x)) if float(x.mean()) > 0 else Tokens.of_map(-self.net(x))


def mine(num_classes: int = 3, fixed: bool = False) -> Recipe:
    encoder = Fixed() if fixed else Convolutions()
    return Recipe(
        Supervised("image", encoder, LinearHead(12, num_classes), classification(False)),
        Data(Image(), evaluation=[ResizeShort(32), CenterCrop(32)]),
    )
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "convolutions_of_mine", raising=False)
    file = tmp_path / "convolutions_of_mine.py"
    file.write_text(OWN)
    return file


def run_of_own(own: Path, folder: Path, **flags):
    KINDS["own"] = (f"{own}:mine", {"num_classes": 3, **flags})
    try:
        return run_of("own", folder)
    finally:
        del KINDS["own"]


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", SOME)
def test_a_torch_program(kind: str, tmp_path: Path) -> None:
    run = run_of(kind, tmp_path / "run")
    out = unveil.export(run, format="torch", out=tmp_path / "network.pt2", quiet=True)
    extra = {"unveil.json": ""}
    program = torch.export.load(out, extra_files=extra).module()
    for count in (1, 2, 5):
        x = batch_of(run, count)
        close(answer(run, x), program(x))
    described = json.loads(extra["unveil.json"])
    assert described["classes"] == run.classes
    assert described["output"]["name"] == ("logits" if run.classes else "features")


@pytest.mark.parametrize("kind", SOME)
def test_an_onnx_network(kind: str, tmp_path: Path) -> None:
    import onnxruntime

    run = run_of(kind, tmp_path / "run")
    out = unveil.export(run, format="onnx", out=tmp_path / "network.onnx", quiet=True)
    session = onnxruntime.InferenceSession(out.read_bytes(), providers=["CPUExecutionProvider"])
    (given,), (found,) = session.get_inputs(), session.get_outputs()
    assert (given.name, found.name) == (run.recipe.data.signal.key, "logits" if run.classes else "features")
    assert given.shape[0] == "batch"
    for count in (1, 2, 5):
        x = batch_of(run, count)
        close(answer(run, x), torch.from_numpy(session.run(None, {given.name: x.numpy()})[0]))
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == run.classes
    assert json.loads(told["mean"]) == list(run.recipe.data.mean)
    assert "CenterCrop" in told["evaluation"]
    assert json.loads(told["unveil"])["recipe"] == run.info["recipe"]


def test_of_a_classifier_the_encoder_alone(tmp_path: Path) -> None:
    run = run_of("vit", tmp_path / "run")
    out = unveil.export(run, format="torch", part="encoder", quiet=True)
    assert out == run.path / "export" / "encoder.pt2"
    x = batch_of(run)
    close(answer(run, x, encoder_only=True), torch.export.load(out).module()(x))


@pytest.mark.parametrize("part", ["whole", "encoder"])
def test_safetensors(part, tmp_path: Path) -> None:
    run = run_of("videomae-finetune", tmp_path / "run")
    out = unveil.export(run, format="safetensors", part=part, quiet=True)
    told = json.loads(out.with_suffix(".json").read_text())
    objective = unveil.build(told["recipe"], **told["flags"]).objective.eval()
    network = objective if part == "whole" else objective.get_submodule("encoder")
    network.load_state_dict(load_file(out))
    x = batch_of(run)
    with torch.no_grad():
        ours = run.objective.logits({"video": x}) if part == "whole" else run.encoder(x).x
        assert torch.equal(ours, network.logits({"video": x}) if part == "whole" else network(x).x)
    assert told["classes"] == (CLASSES if part == "whole" else [])
    assert told["tensors"]["head.linear.weight" if part == "whole" else "fc_norm.weight"]["dtype"] == "float32"
    assert told["input"]["shape"] == ["batch", 3, 4, 32, 32]
    with safe_open(out, "pt") as file:
        assert json.loads(file.metadata()["unveil"])["preprocessing"] == told["preprocessing"]


def test_networks_that_are_no_transformers(own: Path, tmp_path: Path) -> None:
    import onnxruntime

    run = run_of_own(own, tmp_path / "run")
    x = batch_of(run)
    program = torch.export.load(unveil.export(run, format="torch", quiet=True)).module()
    close(answer(run, x), program(x))
    content = unveil.export(run, format="onnx", quiet=True).read_bytes()
    found = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"image": x.numpy()})[0]
    close(answer(run, x), torch.from_numpy(found))
    state = load_file(unveil.export(run, format="safetensors", quiet=True))
    assert "encoder.net.1.running_var" in state
    with pytest.raises(UserError, match=r"no class for this network: its encoder is a Convolutions.*--format torch"):
        unveil.export(run, format="huggingface", quiet=True)


def test_what_cannot_be_traced_is_said(own: Path, tmp_path: Path) -> None:
    run = run_of_own(own, tmp_path / "run", fixed=True)
    with pytest.raises(UserError, match=r"cannot be traced: .* no value of a tensor may decide"):
        unveil.export(run, format="torch", quiet=True)
    assert not (run.path / "export").exists()


class TestComparing:
    def test_the_deviation(self) -> None:
        assert compare(torch.tensor([[1.0, -2.0]]), torch.tensor([[1.0, -2.0001]]), "It") == Deviation(
            pytest.approx(1e-4, rel=1e-2), 2.0
        )

    @pytest.mark.parametrize("theirs", [[[1.0, -2.001]], [[1.0, float("nan")]], [[1.0, 1.0, 1.0]]])
    def test_another_answer_is_refused(self, theirs) -> None:
        with pytest.raises(UserError, match=r"It answers with|It does not answer as the run does"):
            compare(torch.tensor([[1.0, -2.0]]), torch.tensor(theirs), "It")

    def test_small_answers_have_to_agree_too(self) -> None:
        with pytest.raises(UserError):
            compare(torch.tensor([[1e-6, -2e-6]]), torch.tensor([[1e-6, -2.1e-6]]), "It")

    @pytest.mark.parametrize("format", ["torch", pytest.param("onnx", marks=pytest.mark.slow)])
    def test_a_program_that_answers_otherwise_is_not_written(self, format, tmp_path: Path, monkeypatch) -> None:
        from unveil.exporting import programs

        traced = programs._traced

        def wrong(network, x):
            spoiled = copy.deepcopy(network.module)
            spoiled.objective.head.linear.bias.data[0] += 1
            return traced(network._replace(module=spoiled), x)

        monkeypatch.setattr(programs, "_traced", wrong)
        run = run_of("vit", tmp_path / "run")
        with pytest.raises(UserError, match="does not answer as the run does"):
            unveil.export(run, format=format, quiet=True)
        assert not (run.path / "export").exists()

    def test_on_the_run_s_own_files(self, tmp_path: Path) -> None:
        run = run_of("vit", tmp_path / "run")
        x, what = signals(run, None)
        assert what.startswith("noise")
        assert x["image"].shape == (6, 3, 32, 32)
        picture = write_image(tmp_path / "held-out.png", 1)
        write_manifest(run, [Row(str(picture), "cat", None, None, None, None)], "validation")
        x, what = signals(run, None)
        assert what == "1 real signals (held-out.png) and their mirror images"
        assert torch.equal(x["image"][0], x["image"][1].flip(-1))

    def test_on_files_that_are_named(self, tmp_path: Path) -> None:
        run = run_of("videomae-finetune", tmp_path / "run")
        clip = write_video(tmp_path / "clips" / "one.mp4", 2)
        x, what = signals(run, [clip.parent])
        assert what == f"{len(x['video']) // 2} real signals (one.mp4) and their mirror images"
        (tmp_path / "broken.mp4").write_bytes(b"no video")
        with pytest.raises(UserError, match=r"none of these files can be read; the first: .*broken\.mp4"):
            unveil.export(run, format="onnx", data=tmp_path / "broken.mp4", quiet=True)
        with pytest.raises(UserError, match="no such file"):
            unveil.export(run, format="onnx", data=tmp_path / "none.mp4", quiet=True)

    def test_what_was_done_is_said(self, tmp_path: Path, capsys) -> None:
        run = run_of("mae", tmp_path / "run")
        cli.run(["export", str(run.path), "--format", "torch", "--out", str(tmp_path / "a.pt2")])
        told = " ".join(capsys.readouterr().err.split())
        assert "takes image [batch, 3, 32, 32], gives features [batch, 32]" in told
        assert "compared on noise" in told
        assert f"written: {tmp_path / 'a.pt2'}" in told


class TestRefusals:
    def test_nothing_is_overwritten_unasked(self, tmp_path: Path) -> None:
        run = run_of("mae", tmp_path / "run")
        for format, name in {"torch": "n.pt2", "onnx": "n.onnx", "safetensors": "n.safetensors"}.items():
            out = tmp_path / name
            out.write_text("mine")
            with pytest.raises(UserError, match="is there already: use --overwrite"):
                unveil.export(run, format=format, out=out, quiet=True)
            assert out.read_text() == "mine"
        unveil.export(run, format="safetensors", out=tmp_path / "n.safetensors", overwrite=True, quiet=True)
        assert "encoder.class_token" in load_file(tmp_path / "n.safetensors")
        (tmp_path / "m.json").write_text("mine")
        with pytest.raises(UserError, match=r"m\.json is there already"):
            unveil.export(run, format="safetensors", out=tmp_path / "m.safetensors", quiet=True)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"format": "tflite"}, "--format tflite: unknown. Use torch, onnx, safetensors, huggingface"),
            ({"format": "torch", "part": "head"}, "--part head: unknown"),
            ({"format": "torch", "out": "a.onnx"}, r"a file of this format ends in \.pt2"),
            ({"format": "torch", "push": "a/b"}, "add --format huggingface"),
        ],
    )
    def test_flags(self, options, words, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=words):
            unveil.export(run_of("mae", tmp_path / "run"), **options, quiet=True)

    @pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
    def test_a_package_that_is_missing(self, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run = run_of("mae", tmp_path / "run")
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UserError, match=rf"needs {package}, which is not installed.*unveil\[export\]"):
            unveil.export(run, format="onnx", quiet=True)

    def test_more_than_an_onnx_file_can_hold(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from unveil.exporting import programs

        monkeypatch.setattr(programs, "LARGEST_ONNX", 1000)
        with pytest.raises(UserError, match="an ONNX file at most 2"):
            unveil.export(run_of("mae", tmp_path / "run"), format="onnx", quiet=True)

    def test_no_trained_classifier(self, tmp_path: Path) -> None:
        run = run_of("vit", tmp_path / "run")
        info = json.loads((run.path / "run.json").read_text())
        (run.path / "run.json").write_text(json.dumps({**info, "classes": []}))
        with pytest.raises(UserError, match="has no trained classifier"):
            unveil.export(load(run.path), format="torch", quiet=True)
        unveil.export(load(run.path), format="torch", part="encoder", quiet=True)
