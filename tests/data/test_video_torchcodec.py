"""Frames equal torchcodec's, bit for bit, for 8-bit H.264, HEVC and VP9 (where torchcodec and its FFmpeg are installed)."""

from __future__ import annotations

import pytest
import torch
from media import write_video

from unveil.data import read_frames

try:
    from torchcodec.decoders import VideoDecoder  # pyright: ignore[reportMissingImports]
except (ImportError, RuntimeError, OSError) as error:  # RuntimeError: it is there, but no FFmpeg that it knows
    pytest.skip(f"torchcodec cannot be loaded: {str(error).splitlines()[0]}", allow_module_level=True)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p"])
@pytest.mark.parametrize(
    ("codec", "name"), [("libx264", "a.mp4"), ("libx264", "a.mkv"), ("libx265", "a.mp4"), ("libvpx-vp9", "a.webm")]
)
@pytest.mark.parametrize("size", [(64, 96), (50, 38), (66, 70), (47, 63), (256, 340)])
def test_equals_torchcodec(tmp_path, size, codec, name, pix_fmt):
    if size[0] % 2 and pix_fmt != "yuv444p":
        pytest.skip("coders take odd sizes only without subsampled colours")
    if size == (50, 38) and codec == "libx265":
        pytest.skip("x265 writes past its memory at this size, and takes the process with it")
    coarse = torch.rand(12, 3, size[0] // 8, size[1] // 8, generator=torch.Generator().manual_seed(0))
    source = torch.nn.functional.interpolate(coarse, size, mode="bilinear").mul(255).byte().permute(0, 2, 3, 1)
    options = {"preset": "ultrafast", "x265-params": "log-level=none:pools=none"} if codec == "libx265" else None
    bframes = 0 if codec == "libvpx-vp9" else 2
    path = write_video(tmp_path / name, source, codec=codec, pix_fmt=pix_fmt, bframes=bframes, options=options)
    video = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
    assert torch.equal(read_frames(path), video[:])
    assert torch.equal(read_frames(path, indices=[9, 2]), video.get_frames_at([9, 2]).data)
