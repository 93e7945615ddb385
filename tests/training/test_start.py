"""--start."""

import pytest
import torch
from safetensors.torch import save_file

import unveil
from unveil.errors import UserError
from unveil.training.start import read, start

TINY = {"size": "debug", "crop": 32, "patch": 8, "frames": 4}


def save(objective, path):
    save_file({k: v.clone() for k, v in objective.state_dict().items()}, path)
    return path


def test_the_encoder_of_a_pre_training_fits_its_fine_tuning(tmp_path):
    source = unveil.build("videomae", **TINY).objective
    target = unveil.build("videomae:finetune", **TINY, num_classes=3).objective
    report = start(target, save(source, tmp_path / "a.safetensors"))
    for name, value in source.encoder.blocks.state_dict().items():
        torch.testing.assert_close(target.encoder.blocks.state_dict()[name], value, rtol=0, atol=0)
    assert any(name.startswith("head") for name in report.fresh)
    assert any(name.startswith("decoder") for name in report.unused)
    text = "\n".join(report.sentences())
    assert "head" in text
    assert "decoder" in text


def test_an_encoder_alone_is_recognised(tmp_path):
    source = unveil.build("mae", size="debug", crop=32, patch=8).objective
    target = unveil.build("mae", size="debug", crop=32, patch=8).objective
    start(target, save(source.encoder, tmp_path / "encoder.safetensors"))
    assert torch.equal(target.encoder.embed.weight, source.encoder.embed.weight)


def test_other_frames_and_pixels_resize_the_positions(tmp_path):
    source = unveil.build("mae_st", **TINY).objective
    target = unveil.build("mae_st", **{**TINY, "frames": 8, "crop": 48}).objective
    report = start(target, save(source, tmp_path / "a.safetensors"))
    assert report.resized
    assert "resized" in "\n".join(report.sentences())


def test_nested_checkpoints_are_unwrapped(tmp_path):
    objective = unveil.build("mae", size="debug", crop=32, patch=8).objective
    torch.save({"model": objective.state_dict(), "epoch": 3}, tmp_path / "a.pth")
    assert set(read(tmp_path / "a.pth")) == set(objective.state_dict())


def test_what_cannot_be_read_says_why(tmp_path):
    objective = unveil.build("mae", size="debug", crop=32, patch=8).objective
    with pytest.raises(UserError, match="no such run folder or file"):
        start(objective, tmp_path / "nothing")
    (tmp_path / "bad.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="cannot be read as weights"):
        start(objective, tmp_path / "bad.safetensors")
    torch.save({"a": 3}, tmp_path / "foreign.pt")
    with pytest.raises(UserError, match="holds no state dict"):
        start(objective, tmp_path / "foreign.pt")
    save_file({"conv.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="none of its 1 tensors fits"):
        start(objective, tmp_path / "other.safetensors")
