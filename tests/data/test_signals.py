"""Video and images behind one interface."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from media import frame_number, numbered_frames, write_video
from PIL import Image as PillowImage

from unveil.data import Dense, Image, Row, Signal, Uniform, Video, signal_of, to_input
from unveil.errors import DecodeError, UserError


def numbers(clip: torch.Tensor) -> list[int]:
    return [frame_number(frame) for frame in clip.permute(0, 2, 3, 1)]


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / "a.mp4", numbered_frames(40), bframes=2)


@pytest.fixture
def picture(tmp_path):
    PillowImage.fromarray(np.full((6, 8, 3), 90, np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_video_read(clip):
    signal: Signal = Video(Dense(4, 3))
    assert (signal.key, ".mp4" in signal.suffixes) == ("video", True)
    x = signal.read(Row(str(clip)), torch.Generator().manual_seed(1))
    assert (x.dtype, x.shape) == (torch.uint8, (4, 3, 48, 64))
    first = numbers(x)[0]
    assert numbers(x) == [first, first + 3, first + 6, first + 9]
    segment = Row(str(clip), start=1.0, end=1.5)  # frames 16 to 23
    for seed in range(10):
        drawn = numbers(signal.read(segment, torch.Generator().manual_seed(seed)))
        assert 16 <= drawn[0] <= drawn[-1] <= 23


def test_video_views(clip):
    assert [numbers(view) for view in Video(Dense(4, 3)).views(Row(str(clip)), 3)] == [
        [0, 3, 6, 9],
        [15, 18, 21, 24],
        [30, 33, 36, 39],
    ]
    assert [numbers(v) for v in Video(Uniform(4)).views(Row(str(clip), end=99.0), 1)] == [[5, 15, 25, 35]]


def test_segment_outside_the_video(clip):
    with pytest.raises(DecodeError, match=r"starts at 3 s, the video ends at 2\.500"):
        Video(Dense(4, 1)).read(Row(str(clip), start=3.0))


def test_windows(clip):
    found = list(Video(Dense(4, 4)).windows(clip))
    assert [(a, b) for a, b, _ in found] == [(0.0, 1.0), (1.0, 2.0), (2.0, 2.5)]
    assert [numbers(x) for _, _, x in found] == [[0, 4, 8, 12], [16, 20, 24, 28], [32, 36, 36, 36]]
    [(start, end, x)] = Video(Uniform(4)).windows(clip)
    assert (start, end, numbers(x)) == (0.0, 2.5, [5, 15, 25, 35])
    found = list(Video(Uniform(2)).windows(clip, hop=1.0))
    assert [(a, b, numbers(x)) for a, b, x in found] == [
        (0.0, 1.0, [4, 12]),
        (1.0, 2.0, [20, 28]),
        (2.0, 2.5, [34, 38]),
    ]


def test_image(picture):
    signal: Signal = Image()
    assert (signal.key, ".png" in signal.suffixes) == ("image", True)
    row = Row(str(picture))
    assert signal.read(row).shape == (3, 6, 8)
    assert len(signal.views(row, 5)) == 1
    [(start, end, x)] = signal.windows(picture)
    assert (start, end) == (None, None)
    assert torch.equal(x, signal.read(row))


def test_signal_of(tmp_path, clip, picture):
    assert signal_of([clip]) == "video"
    assert signal_of([picture]) == "image"
    (tmp_path / "b.jpg").touch()
    assert signal_of([tmp_path]) == "image"
    (tmp_path / "labels.csv").write_text("path,label\na.mp4,x\n")
    assert signal_of([tmp_path]) == "video"
    assert signal_of([tmp_path / "labels.csv"]) == "video"
    with pytest.raises(UserError, match="no such file"):
        signal_of([tmp_path / "none"])
    (tmp_path / "sub").mkdir()
    with pytest.raises(UserError, match="nothing"):
        signal_of([tmp_path / "sub"])
    (tmp_path / "sub/a.txt").touch()
    with pytest.raises(UserError, match=r"found: \.txt"):
        signal_of([tmp_path / "sub"])


MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.mark.parametrize("shape", [(3, 5, 6), (4, 3, 5, 6)])
@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (0,)])
def test_to_input_of_batches(shape, lead):
    x = torch.randint(256, (*lead, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
    y = to_input(x, MEAN, STD, len(lead))
    clip = len(shape) == 4
    assert y.shape == (*lead, *((3, 4, 5, 6) if clip else (3, 5, 6)))
    assert y.is_contiguous()
    scale, shift = (torch.tensor(v).view(3, *[1] * (len(shape) - 1)) for v in (STD, MEAN))
    torch.testing.assert_close(y, ((x.transpose(len(lead), len(lead) + 1) if clip else x) / 255 - shift) / scale)


def test_to_input():
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    x = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8)
    y = to_input(x, mean, std)
    assert (y.dtype, y.shape, y.is_contiguous()) == (torch.float32, (3, 4, 5, 6), True)
    for c in range(3):
        torch.testing.assert_close(y[c], (x[:, c] / 255 - mean[c]) / std[c])
    torch.testing.assert_close(to_input(x[0], mean, std), y[:, 0])
    with pytest.raises(ValueError):
        to_input(x.double(), mean, std)
    with pytest.raises(ValueError):
        to_input(x[0, 0], mean, std)
