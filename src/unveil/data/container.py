"""Media files opened by FFmpeg: what may be opened, its errors in words, the packets of one stream."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
from av.container.input import InputContainer

from unveil.data.regular_files import check_regular
from unveil.errors import DecodeError

MAX_PIXELS = 1 << 26
"""A picture larger than this (8192 x 8192) is taken for a broken header, not for 800 MB of memory."""

# Containers that hold what they show. Playlists, scripts and image sequences name other files and addresses, whatever the
# file that they stand in is called.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,apng,mpegts,mpeg,mpegvideo,h264,hevc,vvc,av1,obu,ivf,m4v,h263,dirac,vc1,"
    "asf,flv,live_flv,ogg,dv,mxf,gxf,nut,rm,wtv,mjpeg,yuv4mpegpipe,nsv,dhav,wav,mp3,aac,flac,ac3,eac3,w64,aiff,caf,amr,au,"
    "wv,ape,tta,loas,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe,gif_pipe"
)


def open_container(path: str, kind: str) -> InputContainer:
    """Open a media file.

    Args:
        path: the file.
        kind: what is looked for in it, for errors: "video", "sound".

    Raises:
        DecodeError: no such file, not a regular one, or none that is read.
    """
    check_regular(path)
    options = {"protocol_whitelist": "file", "format_whitelist": _FORMATS, "max_pixels": str(MAX_PIXELS)}
    with reported(path):
        try:
            # Absolute, since "12:30.mp4" reads as a protocol.
            return av.open(os.path.abspath(path), metadata_errors="ignore", options=options)
        except av.ArgumentError as error:
            raise DecodeError(f"{path}: not a kind of {kind} that is read ({error.strerror}).") from error


def has_sound(path: str) -> bool:
    """Whether a media file has a sound track, silent or not; its header says so.

    Raises:
        DecodeError: it cannot be opened.
    """
    with open_container(path, "video") as container:
        return bool(container.streams.audio)


@contextmanager
def reported(path: str) -> Iterator[None]:
    """FFmpeg's errors as `DecodeError`, with the file."""
    try:
        yield
    except av.FFmpegError as error:
        words = error.strerror or str(error)
        raise DecodeError(f"{path}: {words}") from error


def packets_of(container: InputContainer, stream: Any, path: str) -> Iterator[Any]:
    """The packets of a stream from where the file stands; the last is empty, and empties the decoder."""
    packets = container.demux(stream)
    try:
        with reported(path):
            for packet in packets:
                if packet.size or packet.dts is None:  # an empty one on the way would mean the end to the decoder
                    yield packet
    except IndexError:
        return  # PyAV stumbles over streams that appeared on the way, at the end: ours is flushed by then
    finally:
        # PyAV's generators do not clean up when they are merely dropped: 150 bytes for each file not read to its end.
        packets.close()  # pyright: ignore[reportAttributeAccessIssue] (declared as an iterator)


def declared_end(container: InputContainer, stream: Any) -> float | None:
    """When the container says that a stream ends, seconds on its own clock; None if it speaks of other streams as well."""
    time_base = float(stream.time_base or 1)
    name = container.format.name
    if name.startswith("matroska"):
        end = clock_time(stream.metadata.get("DURATION", ""))
        if end is None and container.duration is not None and len(container.streams) == 1:
            end = container.duration / av.time_base
        return end
    if name.startswith("mov") and stream.duration is not None:
        return ((stream.start_time or 0) + stream.duration) * time_base
    return None


def clock_time(text: str) -> float | None:
    """Seconds of "01:02:03.5", as Matroska's tags have them."""
    try:
        hours, minutes, seconds = text.strip().strip("\0").split(":")
        value = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
