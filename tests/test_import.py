"""Published checkpoints become runs that predict, embed and fine-tune; what does not match is said by name."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media import write_video
from PIL import Image
from torch import Tensor

import unveil
from unveil import cli
from unveil.errors import UserError
from unveil.importing import class_names
from unveil.run import Run

sys.path.insert(0, str(Path(__file__).parent / "golden"))
from reference import read, state_of

#: Flags and heads of the references' tiny networks that shapes do not tell.
TINY: dict[str, dict[str, Any]] = {
    "beit-pretrain": {},
    "beit-pretrain-abs": {},
    "beit-finetune": {},
    "mae-pretrain-norm": {"crop": 32},
    "mae-finetune-gap": {},
    "mae_st-pretrain-sep-norm": {},
    "mae_st-finetune": {},
    "omnimae-pretrain-video": {"crop": 32, "frames": 8},
    "omnimae-finetune-video": {"crop": 32, "frames": 8},
    "videomae-pretrain-norm": {"crop": 32},
    "videomae-finetune": {"crop": 32, "frames": 8},
    "vit-tiny_token_c64": {},
    "maskfeat-vit-image": {},
    "maskfeat-mvitv2-video": {},
    "mvit-v1_b16x4_d16_t8_c64": {},
    "mvitv2-image_t_d10_c64": {},
    "mvitv2-video_s16x4_d16_t8_c64": {},
    "pytorchvideo-mvit_b_16x4_d16_t8_c64": {},
}
#: Whose heads the shapes tell.
TOLD = ("mvit", "pytorchvideo")
#: Width of the others' features is 64.
WIDTHS = {name: 128 for name in TINY if name.startswith(TOLD)} | {"maskfeat-mvitv2-video": 96}
#: Names that begin so see images; and of these the licence is not MAE's.
OF_IMAGES = ("beit", "mae-", "vit", "mvitv2-image", "maskfeat-vit")
FREE = ("vit", "maskfeat", *TOLD)


def checkpoint(name: str, folder: Path, change: Any = None) -> Path:
    """The reference's tiny network as its authors save one: under "model", with the arguments beside."""
    state = state_of(read(name))
    state = change(state) if change else state
    path = folder / f"{name}.pth"
    torch.save({"model": state, "epoch": 3, "args": argparse.Namespace(lr=0.1)}, path)
    return path


def imported(name: str, folder: Path, change: Any = None, **flags: Any) -> Run:
    file = checkpoint(name, folder, change)
    heads = {"num_heads": 4} | (
        {"decoder_num_heads": 4} if "mae" in name and "pretrain" in name and "video" not in name else {}
    )
    options = {**({} if name.startswith(TOLD) else heads), **TINY[name], "quiet": True, **flags}
    return unveil.import_(file, recipe=name.split("-")[0], out=folder / "run", **options)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two labelled files of each class, as images and as clips."""
    root = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    for number in range(4):
        kind = f"class{number % 2}"
        for what in ("images", "clips"):
            (root / what / kind).mkdir(parents=True, exist_ok=True)
        picture = rng.integers(0, 256, (48, 40, 3), dtype=np.uint8)
        Image.fromarray(picture).save(root / "images" / kind / f"{number}.png")
        write_video(root / "clips" / kind / f"{number}.mp4", torch.from_numpy(np.stack([picture] * 20)), fps=8)
    return {"images": root / "images", "clips": root / "clips"}


@pytest.mark.parametrize("name", TINY)
def test_an_imported_run_is_like_any_other(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    run = imported(name, tmp_path)
    data = files["images" if name.startswith(OF_IMAGES) else "clips"]
    assert run.info["status"] == "complete"
    assert run.info["imported"]["file"] == f"{name}.pth"
    licence = "MIT" if name.startswith("beit") else "CC-BY-NC"
    assert licence in run.info["licence_of_start"] or name.startswith(FREE)
    vectors = run.embed(sorted(data.rglob("*.*")))
    assert vectors.shape[1] == WIDTHS.get(name, 64)
    assert np.isfinite(vectors).all()
    assert (np.ptp(vectors, axis=0) > 0).any()
    if "pretrain" in name or name.startswith("maskfeat"):
        assert run.classes == []
    else:
        rows = run.predict(data)
        assert {label for row in rows for label, _ in row["top"]} <= set(run.classes)
    assert unveil.report(run, quiet=True).is_file()
    flags = {"loader.workers": 0, "schedule.batch": 2, "loader.batch": 2, "quiet": True, "max_steps": 2}
    tuned = unveil.finetune(run.path, data=data, out=tmp_path / "tuned", val_fraction=0, **flags)
    assert tuned.classes == ["class0", "class1"]
    assert tuned.info["licence_of_start"] == run.info["licence_of_start"]


def test_an_encoder_alone_is_a_run_without_its_decoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What facebookresearch/mae publishes for fine-tuning has no decoder."""

    def encoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in state.items() if "decoder" not in name and name != "mask_token"}

    run = imported("mae-pretrain-norm", tmp_path, encoder, quiet=False)
    told = capsys.readouterr().err
    assert "decoder is as initialised" in told
    assert run.info["recipe"] == "mae"
    expected = state_of(read("mae-pretrain-norm"))["blocks.1.mlp.fc1.weight"]
    assert torch.equal(run.encoder.get_parameter("blocks.1.mlp.fc1.weight"), expected)


def test_beits_bias_is_interpolated_for_other_images_and_a_tokenizer_is_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = imported("beit-finetune", tmp_path, crop=48, quiet=False)
    told = " ".join(capsys.readouterr().err.split())
    assert "encoder.attention_bias.1.table (52 × 4 → 124 × 4)" in told
    assert run.encoder.mask_grid(torch.empty(1, 3, 48, 48)) == (6, 6)
    imported("beit-pretrain", tmp_path, quiet=False, overwrite=True)
    assert "the file holds no tokenizer" in " ".join(capsys.readouterr().err.split())


def test_a_shared_bias_in_a_fine_tuned_beit_is_every_blocks(tmp_path: Path) -> None:
    """As the release allows (`use_shared_rel_pos_bias`), and as a pre-trained file without its mask token would be."""

    def shared(state: dict[str, Tensor]) -> dict[str, Tensor]:
        table = state.pop("blocks.1.attn.relative_position_bias_table")
        del state["blocks.0.attn.relative_position_bias_table"]
        return {**state, "rel_pos_bias.relative_position_bias_table": table}

    run = imported("beit-finetune", tmp_path, shared)
    first, second = (run.encoder.get_parameter(f"attention_bias.{number}.table") for number in range(2))
    assert first.any()
    assert torch.equal(first, second)


def test_both_kinds_of_positions_are_refused(tmp_path: Path) -> None:
    def both(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**state, "rel_pos_bias.relative_position_bias_table": torch.zeros(52, 4)}

    with pytest.raises(UserError, match="absolute and relative positions at once"):
        imported("beit-pretrain-abs", tmp_path, both)


def test_wrappers_before_every_name_are_taken_off(tmp_path: Path) -> None:
    run = imported("vit-tiny_token_c64", tmp_path, lambda state: {f"module.{name}": v for name, v in state.items()})
    assert len(run.classes) == 11


def test_other_shapes_are_interpolated_or_begun_anew_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, Path]
) -> None:
    run = imported(
        "mae_st-finetune", tmp_path, frames=16, crop=48, patch=12, num_classes=7, patch_stride=6, quiet=False
    )
    told = " ".join(capsys.readouterr().err.split())
    assert "resized to the new shape" in told
    for name in ("encoder.embed.weight", "encoder.positions.parts.0.table", "encoder.positions.parts.1.table"):
        assert name in told
    assert "of another shape, so begun anew: head.linear.weight (10 × 64 → 7 × 64)" in told
    assert "fine-tune the run before it predicts" in told
    assert run.encoder.mask_grid(torch.empty(1, 3, 16, 48, 48)) == (8, 7, 7)
    assert run.classes == []
    assert np.isfinite(run.embed(sorted(files["clips"].rglob("*.mp4")))).all()
    for act in (lambda: run.predict(files["clips"]), lambda: unveil.evaluate(run, data=files["clips"], quiet=True)):
        with pytest.raises(UserError, match="has no trained classifier: fine-tune it first"):
            act()


def test_an_image_network_starts_one_for_clips(tmp_path: Path, files: dict[str, Path]) -> None:
    """Inflated: each tubelet of a clip that stands still is embedded as the patch of its frame."""
    still = imported("vit-tiny_token_c64", tmp_path)
    moving = unveil.import_(
        tmp_path / "vit-tiny_token_c64.pth", recipe="vit", out=tmp_path / "clip", num_heads=4, frames=4, quiet=True
    )
    image = torch.randn(1, 3, 64, 64)
    clip = image[:, :, None].expand(-1, -1, 4, -1, -1)
    frame, tubelets = (run.encoder.patchify(x) for run, x in ((still, image), (moving, clip)))
    assert tubelets.grid == (2, 4, 4)
    for part in ("embed", "positions"):
        ours, theirs = (run.encoder.get_submodule(part) for run in (moving, still))
        if part == "embed":
            one, other = theirs(frame.x), ours(tubelets.x)
        else:
            one, other = theirs(frame.coords, frame.grid), ours(tubelets.coords, tubelets.grid)
        torch.testing.assert_close(other, one.repeat(1, 2, 1), atol=1e-5, rtol=1e-4)
    assert np.isfinite(moving.predict(files["clips"])[0]["top"][0][1])


def test_errors_name_what_is_wrong_and_lose_nothing(tmp_path: Path) -> None:
    run = imported("vit-tiny_token_c64", tmp_path)
    weights = run.path / "weights.safetensors"
    before = weights.read_bytes()
    file = tmp_path / "vit-tiny_token_c64.pth"
    for words, options in {
        "holds a run": {},
        "look like those of mae or mocov3 or vit": {"recipe": "videomae", "overwrite": True},
        "There is no name map": {"recipe": "vitt", "overwrite": True},
        "--size B: the checkpoint's is 64x4x4": {"size": "B", "overwrite": True},
        "--ratio is not a flag of vit": {"ratio": 0.5, "overwrite": True},
        "no such file, and none of imagenet, kinetics400": {"classes": "names.txt", "overwrite": True},
        "1000 names for the checkpoint's 11 classes": {"classes": "imagenet", "overwrite": True},
    }.items():
        with pytest.raises(UserError, match=words):
            unveil.import_(file, **{"recipe": "vit", "out": run.path, "num_heads": 4, "quiet": True, **options})
    assert weights.read_bytes() == before
    with pytest.raises(UserError, match="no such file"):
        unveil.import_(tmp_path / "none.pth", recipe="vit", out=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        unveil.import_(file, recipe="vit", out=tmp_path / "full", num_heads=4, overwrite=True)
    assert (tmp_path / "full" / "thesis.txt").is_file()
    again = unveil.import_(file, recipe="vit", out=run.path, num_heads=4, overwrite=True, quiet=True)
    assert again.path == run.path


def test_missing_and_left_over_tensors_are_named(tmp_path: Path) -> None:
    def change(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: v for name, v in state.items() if name != "blocks.2.norm1.bias"} | {"neck.weight": torch.ones(3)}

    words = r"missing: encoder.blocks.2.norm1.bias; left over: neck.weight"
    with pytest.raises(UserError, match=words):
        imported("vit-tiny_token_c64", tmp_path, change)
    with pytest.raises(UserError, match=words):  # a flag that changes shapes excuses no missing tensor
        imported("vit-tiny_token_c64", tmp_path, change, crop=32)
    assert imported("vit-tiny_token_c64", tmp_path, change, partial=True).classes


class TestClassNames:
    def test_from_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_text("cat\ndog \n\n")
        (tmp_path / "list.json").write_text('["cat", "dog"]')
        (tmp_path / "map.json").write_text('{"1": "dog", "0": "cat"}')
        for name in ("names.txt", "list.json", "map.json"):
            assert class_names(str(tmp_path / name), 2) == ["cat", "dog"]

    def test_numbers_sort_as_they_count(self) -> None:
        assert class_names(None, 11)[:2] + class_names(None, 11)[-1:] == ["00", "01", "10"]

    @pytest.mark.parametrize(
        ("known", "num", "first"), [("imagenet", 1000, "tench"), ("kinetics400", 400, "abseiling")]
    )
    def test_known_ones(self, known: str, num: int, first: str) -> None:
        names = class_names(known, num)
        assert names[0] == first
        assert len(set(names)) == num

    @pytest.mark.parametrize(
        ("name", "text", "words"),
        [
            ("a.txt", "cat\n", "1 names for the checkpoint's 2"),
            ("b.txt", "cat\ncat\n", "two classes have the name 'cat'"),
            ("c.json", "[1, 2]", "a list of names"),
            ("d.json", "{", "cannot be read"),
        ],
    )
    def test_wrong_ones(self, tmp_path: Path, name: str, text: str, words: str) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=words):
            class_names(str(tmp_path / name), 2)


class TestCommandLine:
    def test_flags_of_both_networks_of_a_system(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = checkpoint("mae-finetune-gap", tmp_path)
        words = ["import", str(file), "--recipe", "mae", "--out", str(tmp_path / "run"), "--num-heads", "4"]
        cli.run([*words, "--drop-path", "0.3", "--sample.mean", "[0.5,0.5,0.5]"])
        told = " ".join(capsys.readouterr().err.split())
        assert "mae:finetune" in told
        assert "mean [0.5, 0.5, 0.5]" in told
        info = json.loads((tmp_path / "run" / "run.json").read_text())
        assert info["flags"]["drop_path"] == 0.3
        with pytest.raises(UserError, match=r"--decoder-depth is not a flag of finetune"):
            cli.run([*words, "--overwrite", "--decoder-depth", "3"])
        with pytest.raises(UserError, match=r"--drop-pth is not a flag of unveil import"):
            cli.run([*words, "--drop-pth", "3"])

    def test_help_without_a_recipe(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            cli.run(["import", "--help"])
        assert "--num-heads" in capsys.readouterr().out
