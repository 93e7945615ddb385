"""What a file holds, known from decoding it once from beginning to end."""

from __future__ import annotations

import os
from typing import NamedTuple

from unveil.data.cloud_files import read_cloud
from unveil.data.images import read_image
from unveil.data.sound_reader import SoundReader
from unveil.data.video_reader import VideoReader
from unveil.errors import DecodeError


class Measured(NamedTuple):
    """What was found; None where it has no meaning for the kind of file.

    `duration`: seconds until the last frame stops being shown. `fps`: frames per second, the mean where it varies.
    `width`, `height`: as shown, upright. `frames`: as many as were decoded. `points`: of a cloud; of a mesh its corners.
    `rate`, `channels`: of a sound file, samples per second as decoded. `peak`: its loudest sample, 1 at full scale.
    """

    width: int | None = None
    height: int | None = None
    duration: float | None = None
    fps: float | None = None
    frames: int | None = None
    has_audio: bool | None = None
    points: int | None = None
    rate: int | None = None
    channels: int | None = None
    peak: float | None = None


def measure_video(path: str | os.PathLike[str]) -> Measured:
    """Decode every frame of a video.

    Raises:
        DecodeError: with the file and the decoder's words.
    """
    with VideoReader(path) as video:
        frames, size, before = 0, (0, 0), 0.0
        for time, frame in video.each():
            video.check_gap(before, time)
            before = time
            if not frames:
                height, width = video.rgb(frame).shape[:2]
                size = width, height
            frames += 1
        if not frames:
            raise DecodeError(f"{path}: no frame could be decoded.")
        duration = video.duration if video.end is None else video.end
        return Measured(*size, duration, video.fps, frames, video.has_audio)


def measure_image(path: str | os.PathLike[str]) -> Measured:
    """Decode an image.

    Raises:
        DecodeError: with the file and the decoder's words.
    """
    _, height, width = read_image(path).shape
    return Measured(width, height)


def measure_cloud(path: str | os.PathLike[str]) -> Measured:
    """Read a cloud of points, or a mesh; points that are not finite do not count.

    Raises:
        DecodeError: with the file and what is wrong with it; also where all points are one.
    """
    points = read_cloud(path).points
    if (points == points[0]).all():
        raise DecodeError(f"{path}: all of its points lie in one place: there is no shape to see.")
    return Measured(points=len(points))


def measure_sound(path: str | os.PathLike[str]) -> Measured:
    """Decode every sample of a sound file.

    Raises:
        DecodeError: with the file and the decoder's words.
    """
    with SoundReader(path) as sound:
        count, peak = 0, 0.0
        for block in sound.unclipped():
            count += len(block)
            peak = max(peak, float(abs(block).max()))
        return Measured(
            duration=count / sound.rate, has_audio=True, rate=sound.rate, channels=sound.channels, peak=peak
        )
