"""A part that is cut out before it is converted equals that part of the whole picture, bit for bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media import numbered_frames, write_video
from PIL import Image as Picture

from unveil.data import (
    Dataset,
    Image,
    Manifest,
    MultiScaleCrop,
    RandomResizedCrop,
    RandomShortSideCrop,
    Uniform,
    Video,
    VideoReader,
)
from unveil.data.boxes import Box
from unveil.data.transforms import CropFirst, HorizontalFlip, RandAugment
from unveil.recipe import Data


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pix_fmt=st.sampled_from(["yuv420p", "yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "gray"]),
    size=st.tuples(st.integers(24, 150), st.integers(24, 300)),
    rotation=st.sampled_from([0, 0, 90, 180, -90]),
    mirror=st.booleans(),
    matrix=st.sampled_from(["", ":colormatrix=bt709", ":colormatrix=smpte170m"]),
    data=st.data(),
)
def test_equals_a_part_of_the_whole(tmp_path, pix_fmt, size, rotation, mirror, matrix, data):
    if pix_fmt not in ("yuv444p", "gray"):
        size = (size[0] // 2 * 2, size[1] // 2 * 2)
    noise = torch.randint(0, 256, (3, *size, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    source = (numbered_frames(3, *size) // 2 + noise // 2).to(torch.uint8)
    options = {"x264-params": f"keyint=2{matrix}"}
    path = write_video(tmp_path / "a.mp4", source, pix_fmt=pix_fmt, rotation=rotation, mirror=mirror, options=options)
    with VideoReader(path) as video:
        times = [2.5 / 16, 0.0, 0.0]
        whole = video.read(times)
        height, width = whole.shape[1:3]
        for _ in range(3):
            top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
            box = Box(top, left, data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left)))
            asked = []
            part = video.read(times, lambda h, w, box=box, asked=asked: asked.append((h, w)) or box)
            assert asked == [(height, width)]
            assert torch.equal(part, whole[:, top : top + box.height, left : left + box.width])
        if pix_fmt != "gray":
            assert (video._pictures._cutter is not None) == (pix_fmt in ("yuv420p", "yuvj420p"))


def test_after_a_change_of_size(tmp_path):
    small = write_video(tmp_path / "a.ts", numbered_frames(8, 64, 96))
    large = write_video(tmp_path / "b.ts", numbered_frames(16, 128, 192)[8:])
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    with VideoReader(both) as video:
        whole = video.read([0.1, 0.6, 0.9])
        part = video.read([0.1, 0.6, 0.9], lambda h, w: Box(11, 13, 31, 57))
    assert torch.equal(part, whole[:, 11:42, 13:70])


@pytest.mark.parametrize(
    "transform",
    [
        RandomResizedCrop(32),
        RandomResizedCrop(40, scale=(0.5, 1.0), bicubic=True),
        MultiScaleCrop(48),
        RandomShortSideCrop(48, 60, 90),
    ],
    ids=["bilinear", "bicubic", "multiscale", "short side"],
)
def test_samples_are_those_of_the_transform(tmp_path, monkeypatch, transform):
    for number in range(3):
        write_video(tmp_path / f"{number}.mp4", numbered_frames(20, 66, 130, seed=number), bframes=2)
    Picture.fromarray(numbered_frames(1, 70, 90)[0].numpy()).save(tmp_path / "a.png")
    for signal in (Video(Uniform(3)), Image()):
        data = Data(signal, transform=[transform, HorizontalFlip(), RandAugment()], erase=0.5)
        manifest = Manifest.scan([tmp_path], signal.suffixes)
        dataset = Dataset(manifest, data, None, training=True, seed=5)
        keys = [(epoch, index) for epoch in range(4) for index in range(len(manifest))]
        cut = [dataset[key][0] for key in keys]
        with monkeypatch.context() as patch:
            patch.setattr(CropFirst, "of", lambda transform: None)
            plain = [dataset[key][0] for key in keys]
        assert all(torch.equal(a[signal.key], b[signal.key]) for a, b in zip(cut, plain, strict=True))
        assert len({tuple(sample[signal.key].flatten()[:50].tolist()) for sample in cut}) > len(keys) // 2


def test_other_transforms_get_the_whole(tmp_path):
    assert CropFirst.of(HorizontalFlip()) is None
