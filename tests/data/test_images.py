"""Every kind of image file becomes uint8 RGB, upright."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from unveil.data import read_image
from unveil.errors import DecodeError

RGB = np.zeros((6, 10, 3), np.uint8)
RGB[..., 0] = np.arange(10) * 25
RGB[..., 1] = np.arange(6)[:, None] * 40
RGB[..., 2] = 77


def expected(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


def test_rgb_and_alpha(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    alpha = np.dstack([RGB, np.full((6, 10), 9, np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        x = read_image(tmp_path / name)
        assert x.dtype == torch.uint8
        assert x.is_contiguous()
        assert torch.equal(x, expected(RGB))


def test_palette(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.png", transparency=bytes([255, 0, 128, 255]))
    want = torch.tensor([[[10, 40], [70, 100]], [[20, 50], [80, 110]], [[30, 60], [90, 120]]], dtype=torch.uint8)
    assert torch.equal(read_image(tmp_path / "a.png"), want)
    assert torch.equal(read_image(tmp_path / "b.png"), want)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_keep_the_upper_eight(tmp_path, name):
    grey = np.array([[0, 255, 256], [32768, 40000, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / name)
    x = read_image(tmp_path / name)
    assert torch.equal(x, torch.from_numpy((grey >> 8).astype(np.uint8)).expand(3, 2, 3))


def test_grey_bilevel_cmyk(tmp_path):
    Image.fromarray(RGB[..., 0]).save(tmp_path / "grey.png")
    assert torch.equal(read_image(tmp_path / "grey.png"), torch.from_numpy(RGB[..., 0].copy()).expand(3, 6, 10))
    Image.fromarray(RGB[..., 0]).convert("1").save(tmp_path / "one.png")
    assert set(read_image(tmp_path / "one.png").unique().tolist()) <= {0, 255}
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "red.jpg")
    red = read_image(tmp_path / "red.jpg")
    assert red[0].min() > 200
    assert red[1:].max() < 60


def test_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    assert torch.equal(read_image(tmp_path / "a.png"), expected(np.rot90(RGB, -1)))


def test_what_cannot_be_read(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(
        tmp_path / "whole.jpg"
    )
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    with pytest.raises(DecodeError, match=r"cut\.jpg: .*truncated"):
        read_image(tmp_path / "cut.jpg")
    Image.fromarray(RGB).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    with pytest.raises(DecodeError, match=r"cut\.png"):
        read_image(tmp_path / "cut.png")
    with pytest.raises(DecodeError, match="No such file"):
        read_image(tmp_path / "none.jpg")
    (tmp_path / "text.jpg").write_text("no")
    with pytest.raises(DecodeError, match="cannot identify"):
        read_image(tmp_path / "text.jpg")
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(DecodeError, match="floating-point"):
        read_image(tmp_path / "f.tif")
    Image.fromarray(np.full((4, 4), 100000, np.int32)).save(tmp_path / "i.tif")
    with pytest.raises(DecodeError, match="exceed 16 bits"):
        read_image(tmp_path / "i.tif")
