"""Folders that the real transformers loads, with the run's answers; read back as runs; and what it cannot express."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from exported import CLASSES, answer, batch_of, run_of
from safetensors.torch import load_file, save_file
from serving_runs import write_log
from torch import Tensor

import unveil
from unveil import cli, weights
from unveil.data import prepared
from unveil.errors import UserError
from unveil.exporting import huggingface
from unveil.run import Run
from unveil.storage import write_json
from unveil.transformers_folder import read_folder

transformers = pytest.importorskip("transformers")

#: Kind of run, part → their class.
CLASSES_OF_THEIRS = {
    ("vit", "whole"): "ViTForImageClassification",
    ("vit", "encoder"): "ViTModel",
    ("beit", "whole"): "BeitForMaskedImageModeling",
    ("beit", "encoder"): "BeitModel",
    ("beit-finetune", "whole"): "BeitForImageClassification",
    ("beit-finetune", "encoder"): "BeitModel",
    ("beit-finetune-class", "whole"): "BeitForImageClassification",
    ("beit-finetune-absolute", "whole"): "BeitForImageClassification",
    ("mae", "whole"): "ViTMAEForPreTraining",
    ("mae-plain", "whole"): "ViTMAEForPreTraining",
    ("mae", "encoder"): "ViTModel",
    ("mae-finetune", "whole"): "BeitForImageClassification",
    ("mae-finetune", "encoder"): "BeitModel",
    ("mae-finetune-class", "whole"): "ViTForImageClassification",
    ("videomae", "whole"): "VideoMAEForPreTraining",
    ("videomae-plain", "whole"): "VideoMAEForPreTraining",
    ("videomae", "encoder"): "VideoMAEModel",
    ("videomae-finetune", "whole"): "VideoMAEForVideoClassification",
}


def loaded(folder: Path) -> Any:
    """As a user loads it; nothing may be missing or left over."""
    (architecture,) = json.loads((folder / "config.json").read_text())["architectures"]
    more = {"add_pooling_layer": False} if architecture == "ViTModel" else {}
    model, info = getattr(transformers, architecture).from_pretrained(folder, output_loading_info=True, **more)
    assert not any(info.values())
    return model.eval()


def pixels(x: Tensor) -> Tensor:
    return x.transpose(1, 2) if x.ndim == 5 else x


@pytest.mark.parametrize(("kind", "part"), CLASSES_OF_THEIRS)
def test_transformers_answers_as_the_run_does(kind: str, part: Any, tmp_path: Path) -> None:
    run = run_of(kind, tmp_path / "run")
    folder = unveil.export(run, format="huggingface", part=part, quiet=True)
    assert folder == run.path / "export" / f"huggingface-{part}"
    assert sorted(path.name for path in folder.iterdir()) == sorted(huggingface.FILES)
    model = loaded(folder)
    assert type(model).__name__ == CLASSES_OF_THEIRS[kind, part]
    x = batch_of(run)
    with torch.no_grad():
        if part == "encoder":
            found = model(pixels(x))
            torch.testing.assert_close(found.last_hidden_state, run.encoder(x).sequence(), rtol=1e-4, atol=1e-4)
            if kind in ("beit-finetune", "mae-finetune"):
                torch.testing.assert_close(found.pooler_output, answer(run, x, True), rtol=1e-4, atol=1e-4)
        elif run.classes:
            torch.testing.assert_close(model(pixels(x)).logits, answer(run, x), rtol=1e-4, atol=1e-4)
            assert model.config.id2label == dict(enumerate(CLASSES))
        else:
            check_pretraining(run, model, x)


def check_pretraining(run: Run, model: Any, x: Tensor) -> None:
    """The loss and the predictions under the same mask."""
    objective: Any = run.objective
    batch = {objective.key: x, "seed": torch.arange(len(x)) + 7}
    mask = objective.masked(batch)
    places = int(np.prod(objective.encoder.mask_grid(x)))
    hidden = torch.zeros(len(x), places).scatter(1, mask.masked, 1.0)
    if type(model).__name__ == "BeitForMaskedImageModeling":  # theirs predicts all patches, and knows no codes
        found = model(x, bool_masked_pos=hidden.bool()).logits
        logits = found.gather(1, mask.masked[..., None].expand(-1, -1, found.shape[-1]))
        torch.testing.assert_close(logits, objective.predict(batch, mask)[0], rtol=1e-4, atol=1e-4)
        return
    given = {"bool_masked_pos": hidden.bool()} if x.ndim == 5 else {"noise": hidden}
    found = model(pixels(x), **given)
    torch.testing.assert_close(found.loss, objective(batch, mask)["loss"], rtol=1e-4, atol=1e-5)
    logits = found.logits
    if x.ndim == 4:  # theirs predicts all patches
        logits = logits.gather(1, mask.masked[..., None].expand(-1, -1, logits.shape[-1]))
        assert torch.equal(found.mask.bool(), hidden.bool())
    torch.testing.assert_close(logits, objective.predict(batch, mask)[0], rtol=1e-4, atol=1e-4)


def test_an_answer_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(objective: Any, encoder_only: bool = False) -> weights.Reverted:
        found = weights.revert(objective, encoder_only)
        name = next(name for name in found.state if name.endswith("query.weight"))
        return found._replace(state={**found.state, name: found.state[name] + 0.01})

    run = run_of("vit", tmp_path / "run")
    monkeypatch.setattr(huggingface, "revert", spoiled)
    with pytest.raises(UserError, match="ViTForImageClassification does not answer as the run does"):
        unveil.export(run, format="huggingface", quiet=True)
    assert not (run.path / "export").exists()


def test_tensors_that_their_class_does_not_want_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(objective: Any, encoder_only: bool = False) -> weights.Reverted:
        found = weights.revert(objective, encoder_only)
        return found._replace(state={k: v for k, v in found.state.items() if k != "vit.layernorm.bias"})

    monkeypatch.setattr(huggingface, "revert", lacking)
    with pytest.raises(UserError, match=r"does not fit: missing_keys: vit\.layernorm\.bias"):
        unveil.export(run_of("vit", tmp_path / "run"), format="huggingface", quiet=True)


def test_without_transformers_it_is_written_and_said(tmp_path: Path, monkeypatch, capsys) -> None:
    run = run_of("vit", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "transformers", None)
        folder = unveil.export(run, format="huggingface")
    assert "not compared with the run: transformers is not installed" in " ".join(capsys.readouterr().err.split())
    x = batch_of(run)
    with torch.no_grad():
        torch.testing.assert_close(loaded(folder)(x).logits, answer(run, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["vit", "videomae-finetune"])
def test_the_preprocessing_is_the_run_s(kind: str, tmp_path: Path) -> None:
    run = run_of(kind, tmp_path / "run", **{"sample.mean": (0.5, 0.4, 0.3), "sample.std": (0.2, 0.3, 0.25)})
    folder = unveil.export(run, format="huggingface", quiet=True)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    # Of a size whose margins are even: where one is odd, theirs cuts a pixel beside ours.
    picture = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)
    image = torch.from_numpy(picture).permute(2, 0, 1)
    if kind == "vit":
        theirs = processor(picture, return_tensors="pt").pixel_values[0]
        ours = prepared(run.recipe.data, image)["image"]
    else:
        theirs = processor([picture] * 4, return_tensors="pt").pixel_values[0].transpose(0, 1)
        ours = prepared(run.recipe.data, image[None].expand(4, -1, -1, -1))["video"]
    assert ours.shape == theirs.shape
    # A level of grey is 1 / 255 / 0.2; where the resizing rounds may differ.
    assert (ours - theirs).abs().max() < 1.5 / 255 / 0.2


class TestRefusals:
    @pytest.mark.parametrize(
        ("kind", "flags", "words"),
        [
            ("vit", {"patch_stride": 4}, "its patches overlap"),
            ("vit", {"pool": "mean"}, "it has no class token"),
            ("vit-clips", {}, "its positions are learned, where theirs are flat"),
            ("videomae", {"positions": "sincos"}, "its positions are sincos, where theirs are flat"),
            ("mae_st", {}, "it has a class token; its positions are SumPositions"),
            ("videomae-finetune", {"part": "encoder"}, "the norm of its pooled features"),
        ],
    )
    def test_what_their_classes_cannot_express(self, kind: str, flags: dict, words: str, tmp_path: Path) -> None:
        part = flags.get("part", "whole")
        run = run_of(kind, tmp_path / "run", **{name: value for name, value in flags.items() if name != "part"})
        with pytest.raises(
            UserError, match=f"transformers has no class for this network: .*{words}.*Use --format torch"
        ):
            unveil.export(run, format="huggingface", part=part, quiet=True)
        assert not (run.path / "export").exists()

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda o: setattr(o.encoder, "attention_bias", torch.nn.Identity()), "bias of relative positions"),
            (lambda o: setattr(o.encoder, "masked", "replace"), "a token in the place of what is masked"),
            (lambda o: setattr(o, "head", torch.nn.Identity()), "its head is a Identity"),
            (lambda o: setattr(o.encoder, "positions", None), "its positions are NoneType"),
            (lambda o: setattr(o.encoder, "embed", torch.nn.Identity()), "more than a linear layer"),
        ],
    )
    def test_parts_that_recipes_of_one_s_own_may_have(self, change, words) -> None:
        objective = unveil.build("vit", size="debug", crop=32, patch=8).objective
        weights.revert(objective)
        change(objective)
        with pytest.raises(UserError, match=words):
            weights.revert(objective)

    @pytest.mark.parametrize(
        ("recipe", "change", "words"),
        [
            ("mae", lambda o: setattr(o.target, "normalize", "channel"), "its target is Pixels.*--part encoder"),
            ("mae", lambda o: setattr(o, "masker", lambda grid, generator: None), "it masks by .*--part encoder"),
            ("mae", lambda o: setattr(o.decoder, "share_class_token", False), "its decoder treats the class token"),
            ("videomae", lambda o: setattr(o.target, "mean", (0.5, 0.5, 0.5)), "its target is Pixels.*--part encoder"),
            ("videomae", lambda o: setattr(o, "decoder", torch.nn.Identity()), "its decoder is a Identity"),
        ],
    )
    def test_decoders_and_targets(self, recipe, change, words) -> None:
        objective = unveil.build(recipe, size="debug", crop=32, patch=8).objective
        weights.revert(objective)
        change(objective)
        with pytest.raises(UserError, match=words):
            weights.revert(objective)
        assert weights.revert(objective, encoder_only=True).architecture == {"mae": "ViTModel"}.get(
            recipe, "VideoMAEModel"
        )

    def test_a_folder_of_other_things(self, tmp_path: Path) -> None:
        run = run_of("vit", tmp_path / "run")
        out = tmp_path / "out"
        out.mkdir()
        (out / "thesis.txt").write_text("mine")
        with pytest.raises(UserError, match="is not empty: empty it"):
            unveil.export(run, format="huggingface", out=out, overwrite=True, quiet=True)
        with pytest.raises(UserError, match="is a file"):
            unveil.export(run, format="huggingface", out=out / "thesis.txt", quiet=True)

    def test_overwriting_keeps_what_is_not_ours(self, tmp_path: Path) -> None:
        run = run_of("vit", tmp_path / "run")
        folder = unveil.export(run, format="huggingface", quiet=True)
        (folder / "notes.md").write_text("mine")
        with pytest.raises(UserError, match="holds a network: use --overwrite"):
            unveil.export(run, format="huggingface", quiet=True)
        unveil.export(run, format="huggingface", overwrite=True, quiet=True)
        assert (folder / "notes.md").read_text() == "mine"
        for name in ("notes.md", "config.json"):  # what a kill leaves: all but the last file
            (folder / name).unlink()
        unveil.export(run, format="huggingface", overwrite=True, quiet=True)
        assert (folder / "config.json").is_file()


class TestBack:
    """A folder becomes a run again, with nothing said but its place."""

    @pytest.mark.parametrize(
        "kind",
        [
            *("vit", "beit", "beit-finetune", "beit-finetune-class", "mae", "mae-plain", "mae-finetune"),
            *("videomae", "videomae-plain", "videomae-finetune"),
        ],
    )
    def test_round_trip(self, kind: str, tmp_path: Path) -> None:
        run = run_of(kind, tmp_path / "run", **{"sample.std": (0.2, 0.3, 0.25)})
        folder = unveil.export(run, format="huggingface", quiet=True)
        back = unveil.import_(folder, out=tmp_path / "back", quiet=True)
        assert back.classes == run.classes
        assert back.recipe.data.std == (0.2, 0.3, 0.25)
        x = batch_of(run)
        torch.testing.assert_close(answer(back, x), answer(run, x), rtol=1e-5, atol=1e-5)
        if not run.classes:
            batch = {run.recipe.data.signal.key: x, "seed": torch.arange(len(x))}
            if kind == "beit":  # the tokenizer stays behind
                back.objective.target.load_state_dict(run.objective.target.state_dict())
            with torch.no_grad():
                assert back.objective(batch)["loss"].item() == pytest.approx(
                    run.objective(batch)["loss"].item(), rel=1e-5
                )

    @pytest.mark.parametrize(
        ("kind", "recipe"), [("vit", "vit"), ("mae", "mae"), ("beit-finetune", None), ("videomae", None)]
    )
    def test_an_encoder_alone(self, kind: str, recipe: str | None, tmp_path: Path) -> None:
        run = run_of(kind, tmp_path / "run")
        folder = unveil.export(run, format="huggingface", part="encoder", quiet=True)
        back = unveil.import_(folder, out=tmp_path / "back", recipe=recipe, quiet=True)
        x = batch_of(run)
        torch.testing.assert_close(answer(back, x, True), answer(run, x, True), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize(
        "kind", ["vit", "beit-finetune", "beit-finetune-class", "mae", "mae-finetune", "videomae", "videomae-finetune"]
    )
    def test_names_of_their_modules_in_memory(self, kind: str, tmp_path: Path) -> None:
        """Version 5 has others there than in its files, and writes some of them into files."""
        run = run_of(kind, tmp_path / "run")
        model = loaded(unveil.export(run, format="huggingface", quiet=True))
        again = tmp_path / "again"
        model.save_pretrained(again)
        hints = read_folder(again).hints | {"crop": 32, "frames": 4}
        hints = (
            hints if kind.startswith("videomae") else {k: v for k, v in hints.items() if k not in ("crop", "frames")}
        )
        for state in (model.state_dict(), load_file(again / "model.safetensors")):
            network = weights.load(kind.partition("-")[0], dict(state), **hints).objective.eval()
            ours = {name: value for name, value in run.objective.state_dict().items() if "attn.qkv.bias" not in name}
            for name, value in ours.items():
                assert torch.equal(value, network.state_dict()[name]), name

    def test_on_the_command_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = run_of("videomae-finetune", tmp_path / "run")
        folder = unveil.export(run, format="huggingface", quiet=True)
        cli.run(["import", str(folder), "--out", str(tmp_path / "back"), "--frames", "8", "--drop-path", "0.2"])
        told = " ".join(capsys.readouterr().err.split())
        assert "videomae:finetune" in told
        assert "frames 8" in told
        assert "does not name its" not in told
        info = json.loads((tmp_path / "back" / "run.json").read_text())
        assert info["licence_of_start"].startswith("unknown")  # the card of a run from scratch names none
        assert info["flags"]["drop_path"] == 0.2

    def test_what_is_no_such_folder(self, tmp_path: Path) -> None:
        run = run_of("vit", tmp_path / "run")
        folder = unveil.export(run, format="huggingface", quiet=True)
        config = json.loads((folder / "config.json").read_text())

        def refused(words: str, **options: Any) -> None:
            with pytest.raises(UserError, match=words):
                unveil.import_(folder, out=tmp_path / "back", quiet=True, **options)
            assert not (tmp_path / "back").exists()

        refused("--recipe videomae: .* is of vit", recipe="videomae")
        for changed, words in {
            ("model_type", "bert"): "model_type 'bert' has no counterpart",
            ("hidden_act", "relu"): "hidden_act 'relu'",
            ("num_attention_heads", "two"): "num_attention_heads is 'two'",
            ("model_type", "beit"): r"not the weights of beit.* They look like those of vit",
        }.items():
            write_json(folder / "config.json", {**config, changed[0]: changed[1]})
            refused(words)
        (folder / "config.json").write_text("{")
        refused("cannot be read as JSON")
        (folder / "config.json").write_text("[1]")
        refused("an object is expected, not a list")
        (folder / "config.json").unlink()
        refused("has no config.json")
        write_json(folder / "config.json", config)
        (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
        refused("holds none of model.safetensors, pytorch_model.bin")
        with pytest.raises(UserError, match="--recipe has to say"):
            unveil.import_(folder / "model-00001-of-00002.safetensors", out=tmp_path / "back")

    def test_a_pooler_is_left_out_and_other_norms_are_said(self, tmp_path: Path, capsys) -> None:
        run = run_of("vit", tmp_path / "run")
        folder = unveil.export(run, format="huggingface", part="encoder", quiet=True)
        state = load_file(folder / "model.safetensors") | {"pooler.dense.weight": torch.ones(32, 32)}
        save_file(state, folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text())
        write_json(folder / "config.json", {**config, "layer_norm_eps": 1e-12})
        unveil.import_(folder, out=tmp_path / "back")
        told = " ".join(capsys.readouterr().err.split())
        assert "pooler (a layer on the class token) has no place here" in told
        assert "its norms add 1e-12 to a variance, those here 1e-06" in told


class TestCard:
    def card(self, run: Run) -> tuple[dict[str, Any], str]:
        folder = unveil.export(run, format="huggingface", overwrite=True, quiet=True)
        _, front, text = (folder / "README.md").read_text().split("---\n", 2)
        return yaml.safe_load(front), text

    def test_it_says_what_the_run_holds(self, tmp_path: Path) -> None:
        run = run_of("videomae-finetune", tmp_path / "run")
        front, text = self.card(run)
        assert front["pipeline_tag"] == "video-classification"
        assert front["tags"] == ["unveil", "videomae"]
        assert "license" not in front
        assert "the run was not evaluated" in text
        assert "arXiv:2203.12602" in text
        assert "a list of 4 frames" in text
        (run.path / "evaluate").mkdir()
        write_json(run.path / "evaluate" / "accuracy.json", {"metrics": {"top1": 0.8125, "samples": 16}})
        write_json(run.path / "evaluate" / "other.json", ["no report"])
        write_log(run, [{"step": 1, "loss": 2.0, "val_top1": 0.25}, {"step": 2, "loss": 1.5}])
        _, text = self.card(run)
        assert "| accuracy | top1 | 0.8125 |" in text
        assert "other" not in text.split("## Numbers")[1].split("##")[0]
        for row in ("| last loss | 1.5 |", "| last val_top1 | 0.25 |", "| steps | 2 |"):
            assert row in text

    @pytest.mark.parametrize(
        ("licence", "named"),
        [
            ("CC-BY-NC-4.0 (facebookresearch/mae)", "cc-by-nc-4.0"),
            ("unknown: a weights file, ask whoever made it", "other"),
            ("the start run's own weights (trained from scratch)", None),
        ],
    )
    def test_licences(self, licence: str, named: str | None, tmp_path: Path) -> None:
        run = run_of("vit", tmp_path / "run")
        run.info["licence_of_start"] = licence
        write_json(run.path / "run.json", run.info)
        front, text = self.card(run)
        assert front.get("license") == named
        assert (licence in text) == (named is not None)
        back = unveil.import_(run.path / "export" / "huggingface-whole", out=tmp_path / "back", quiet=True)
        assert back.info["licence_of_start"].startswith(named or "unknown")

    def test_names_are_no_markup_and_places_stay_at_home(self, tmp_path: Path) -> None:
        run = run_of("vit", tmp_path / "run")
        run.info["asked"] = {
            "data": ["/home/somebody/secret/[x](http://evil)|labelled"],
            "start": "/home/somebody/a.pth",
        }
        write_json(run.path / "run.json", run.info)
        _, text = self.card(run)
        assert "/home/" not in text
        assert "secret" not in text
        assert "<b>" not in text
        assert "[x](http" not in text.replace("\\[", "").replace("\\]", "")
