"""Small media files for tests: frames that can be told apart, written with a chosen codec, GOP, rotation and timing."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.video.stream import VideoStream
from torch import Tensor


def numbered_frames(count: int, height: int = 48, width: int = 64, seed: int = 0) -> Tensor:
    """Frames [T,H,W,3] that tell their number: 8 vertical bars hold its bits (red), the rest is a drifting gradient.

    `frame_number` reads the number back, also after lossy coding.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    tint = rng.integers(40, 200)
    frames = np.empty((count, height, width, 3), np.uint8)
    for number in range(count):
        bit = (number >> (x * 8 // width)) & 1
        frames[number, ..., 0] = np.where(bit == 1, 220, 30)
        frames[number, ..., 1] = (y * 2 + number * 3) % 200
        frames[number, ..., 2] = tint
    return torch.from_numpy(frames)


def frame_number(frame: Tensor | np.ndarray) -> int:
    """The number of a frame [H,W,3] drawn by `numbered_frames`."""
    red = np.asarray(frame)[..., 0].astype(float)
    width = red.shape[1]
    number = 0
    for bit in range(8):
        low, high = bit * width // 8, (bit + 1) * width // 8
        margin = max(1, (high - low) // 4)  # chroma subsampling smears the edges of the bars
        number |= int(red[:, low + margin : high - margin].mean() > 125) << bit
    return number


def write_video(
    path: Path,
    frames: Tensor,
    fps: int = 16,
    codec: str = "libx264",
    gop: int = 12,
    bframes: int = 0,
    pix_fmt: str | None = None,
    rotation: float = 0,
    mirror: bool = False,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    container_format: str | None = None,
) -> Path:
    """Encode `frames` (uint8 [T,H,W,3], RGB; [T,H,W,4] with alpha) to `path`; its suffix chooses the container.

    Args:
        gop: distance of key frames, at most.
        bframes: consecutive B-frames.
        rotation: counter-clockwise degrees of the display matrix (mp4, mkv).
        mirror: the display matrix mirrors as well.
        pts: presentation times in `time_base` (variable frame rate); 0, 1, 2, … in 1/fps otherwise.
    """
    pix_fmt = pix_fmt or {"gif": "rgb8", "png": "rgb24", "ffv1": "bgr0", "libx264rgb": "rgb24"}.get(codec, "yuv420p")
    options = dict(options or {})
    if codec == "libx264":
        options = {"preset": "ultrafast", "crf": "12", "sc_threshold": "0", "bf": str(bframes)} | options
    elif codec == "libvpx-vp9":
        options = {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0"} | options
    elif codec == "mpeg4":
        options = {"qscale": "2", "flags": "+qscale", "global_quality": "236"} | options
    with av.open(str(path), "w", format=container_format, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.codec_context.gop_size = gop
        if codec != "libx264":
            stream.codec_context.max_b_frames = bframes
        base = time_base or Fraction(1, fps)
        stream.codec_context.time_base = base
        stream.codec_context.thread_count = 1
        if rotation or mirror:
            stream.set_display_rotation(rotation, hflip=mirror)
        source = "rgba" if frames.shape[3] == 4 else "rgb24"
        for number, array in enumerate(frames.numpy()):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format=source)
            frame.pts = pts[number] if pts is not None else number
            frame.time_base = base
            container.mux(stream.encode(frame.reformat(format=pix_fmt)))
        container.mux(stream.encode(None))
    return path
