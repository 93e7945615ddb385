"""An open video file: its packets, its clock, and where it says it ends.

Time is in seconds from the first frame of the video, whatever the container's own clock starts at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import chain
from typing import NamedTuple

import av
from av.container.input import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from unveil.data.container import MAX_PIXELS, declared_end, open_container, packets_of, reported
from unveil.data.disposable import Structure, after, disposable, refreshes_gradually, structure_of
from unveil.errors import DecodeError

MAX_GAP = 3600.0
"""Seconds for which one frame may be shown; beyond, the file's clock is broken."""

# Their frames build on the ones before, though every packet (or none) is marked as a key frame.
_WITHOUT_KEY_FRAMES = {"gif", "apng"}
_SEEK_BACK = (0.0, 1.0, 4.0, 16.0)  # seconds before the wanted time at which a key frame is looked for, in turn
# A packet is a frame in these, and bears its time: which packets must be decoded can be told beforehand. True: frames are
# not coded in the order they are shown in. (H.264 and HEVC only where their packets can be read.)
_REORDERED = {"h264": True, "hevc": True, "vp9": False, "av1": False, "mjpeg": False, "prores": False, "ffv1": False}


class Timing(NamedTuple):
    pts: list[int] | None  # presentation times in order; None when packets carry none
    packets: int
    duration: float | None  # seconds


class VideoFile:
    """An open video file; a context manager.

    Args:
        path: the file.
        threads: decoder threads, 0 for one per core. Worker processes want 1.
        thread_type: "SLICE" (no delay), "FRAME" or "AUTO".

    Raises:
        DecodeError: no such file, not a regular one, no video in it, or the decoder gave up; here and in every method.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 1, thread_type: str = "SLICE"):
        self.path = str(path)
        self.threads = threads
        self.thread_type = thread_type
        self.end: float | None = None  # when the last frame stops being shown; known once the file was read to there
        self._container: InputContainer | None = None
        # The first packet, and those after it, where they were looked at but not used yet.
        self._begun: tuple[av.Packet[VideoStream], Iterator[av.Packet[VideoStream]]] | None = None
        self._open()
        try:
            self._learn()
        except BaseException:
            self.close()  # the error's traceback holds this object, and may be kept
            raise

    def _learn(self) -> None:
        """What the headers tell, and the packets where the headers do not."""
        # All of it before anything reopens the file: a stream of a closed container is a dangling pointer in PyAV.
        stream = self._stream
        self._size = (stream.codec_context.width, stream.codec_context.height)
        self._time_base = float(stream.time_base or 1)
        self._seekable = self._format not in _WITHOUT_KEY_FRAMES
        self.codec = stream.codec_context.name
        coding = stream.codec_context.codec.canonical_name
        self._structure: Structure | None = structure_of(coding, stream.codec_context.extradata)
        num_frames = stream.frames
        fps, guessed = float(stream.average_rate or 0), float(stream.guessed_rate or stream.average_rate or 25)
        duration = None
        if stream.duration is not None:
            duration = stream.duration * self._time_base
        elif self._container_duration is not None:
            duration = self._container_duration / av.time_base
        self._start = stream.start_time
        self._by_dts = False
        if self._start is None or self._format == "avi":
            self._start = self._first_pts(stream.codec_context.has_b_frames, coding)
        self._declared_end = self._declares(self._stream)
        if self._declared_end is not None:
            duration = self._declared_end
        self._foretold = (  # whether packets tell which frame is shown when
            self._seekable
            and self._format != "avi"
            and self._start is not None
            and coding in _REORDERED
            and (not _REORDERED[coding] or (self._structure is not None and self._structure.sure))
        )
        self._reordered = _REORDERED.get(coding, True)
        timing: Timing | None = None
        # Some muxers write their clock (1000, 90000) as the rate; then, as without any, the packets are counted.
        if (self._start is None and self._declared_end is None) or not duration or duration <= 0 or not 0 < fps <= 240:
            timing = self._scan()
            if timing.pts is None:  # a bare stream: frames come at the coded rate
                fps = guessed
                duration = timing.packets / fps
            else:
                duration = timing.duration or 0.0
                fps = timing.packets / duration if duration > 0 else 25.0
        assert duration is not None
        self.fps = fps
        self.duration = duration
        self.num_frames = num_frames or (timing.packets if timing else 0) or max(1, round(duration * fps))
        # Containers round times to their clock, so a time computed as n/fps may lie just before frame n's.
        self.tolerance = (self._time_base / 2 if self._time_base <= 1 / fps / 4 else 0.0) + 1e-6

    def close(self) -> None:
        self._begun = None
        if self._container is not None:
            self._container.close()
            self._container = None

    # ---- opening

    def _open(self) -> None:
        self.close()
        container = open_container(self.path, "video")
        self._container = container
        covers = Disposition.attached_pic
        streams = [s for s in container.streams.video if not s.disposition & covers]
        if not streams:
            self.close()
            raise DecodeError(f"{self.path}: holds no video stream.")
        self._stream: VideoStream = streams[0]
        self._format = container.format.name
        self._container_duration = container.duration
        self.has_audio = bool(container.streams.audio)
        self._fresh = True
        context = self._stream.codec_context
        if context is None:
            self.close()
            raise DecodeError(f"{self.path}: no decoder for its video stream.")
        if context.width * context.height > MAX_PIXELS:
            size = f"{context.width} x {context.height}"
            self.close()
            raise DecodeError(
                f"{self.path}: claims pictures of {size}, more than {MAX_PIXELS} pixels: its header is broken."
            )
        for stream in container.streams:
            if stream.index != self._stream.index:
                stream.discard = Discard.all  # not even read, where the container allows
        context.thread_type = self.thread_type
        context.thread_count = self.threads
        context.options = {"max_pixels": str(MAX_PIXELS)}

    def _opened(self) -> InputContainer:
        if self._container is None:
            raise ValueError(f"{self.path} is closed")
        return self._container

    def _reported(self) -> AbstractContextManager[None]:
        return reported(self.path)

    # ---- packets

    def _packets(self) -> Iterator[av.Packet[VideoStream]]:
        """The stream's packets from where the file stands; the last is empty, and empties the decoder."""
        begun, self._begun = self._begun, None
        self._fresh = False
        if begun is not None:
            yield begun[0]
            yield from begun[1]
            return
        yield from packets_of(self._opened(), self._stream, self.path)

    def _rewind(self) -> None:
        if not self._fresh:
            self._open()  # exact for every format; seeking to zero is not

    def _packets_for(self, time: float) -> tuple[Iterator[av.Packet[VideoStream]], int | None]:
        """Packets from a key frame that is shown at `time` or before, and that frame's own time; or all, and None."""
        self._opened()
        if time > self.tolerance and self._seekable and self._start is not None:
            # A demuxer seeks by decoding time, and a key frame decoded before `wanted` may be shown after it.
            wanted = self._start + int((min(time, 1e9) + self.tolerance) / self._time_base)
            for back in _SEEK_BACK:
                offset = wanted - int(back / self._time_base)
                if offset <= self._start:
                    break
                self._begun = None
                try:
                    self._opened().seek(offset, stream=self._stream)
                except (av.FFmpegError, OverflowError):  # not a seekable file: it is read from the start
                    self._fresh = False
                    break
                packets = self._packets()
                key = next((p for p in packets if p.size == 0 or self._entry(p)), None)
                since = None if key is None or not key.size else key.dts if self._by_dts else key.pts
                if key is not None and since is not None and since <= wanted:
                    return chain([key], packets), since
        self._rewind()
        return self._packets(), None

    def _disposable(self, packet: av.Packet[VideoStream]) -> bool:
        """Whether no other packet needs this one; follows what the stream says about its structure on the way."""
        if self._structure is None:
            return False
        if packet.has_sidedata("new_extradata"):
            self._structure = self._structure._replace(sure=False)
        data = bytes(packet)
        if disposable(data, self._structure):
            return True
        self._structure = after(data, self._structure)
        return False

    def _entry(self, packet: av.Packet[VideoStream]) -> bool:
        """Whether decoding can begin here, and all that is shown from here on is as it would be from the start."""
        if not packet.is_keyframe or not self._seekable:
            return False
        if self._structure is not None and refreshes_gradually(bytes(packet), self._structure):
            self._seekable = False  # such a stream has no key frame but its first
            return False
        return True

    def _key_frame_between(self, now: float, then: float) -> bool:
        """Whether seeking to `then` saves decoding, going by the container's index (none: no)."""
        if not self._seekable or self._start is None or then <= now:
            return False
        entries = getattr(self._stream, "index_entries", None)
        if not entries:
            return False
        found = entries.search_timestamp(self._start + int(min(then, 1e9) / self._time_base))
        return found >= 0 and self.seconds(entries[found].timestamp) > now

    # ---- time

    def seconds(self, pts: int) -> float:
        assert self._start is not None
        return (pts - self._start) * self._time_base

    def ends_with(self, pts: int, duration: int | None) -> float:
        """Note that the video's last frame is shown from `pts`, and say until when."""
        since = self.seconds(pts)
        self.end = since + (duration * self._time_base if duration else 1 / self.fps)
        self.check_gap(since, self.end)
        return self.end

    def check_gap(self, since: float, until: float) -> None:
        if until - since > MAX_GAP:
            raise DecodeError(
                f"{self.path}: after {since:.1f} s its clock jumps to {until:.4g} s. Re-encode it, or leave it out."
            )

    def check_end(self, asked: float) -> None:
        """Raises DecodeError if the container says that the video goes on to `asked`, and it ended well before."""
        if self.end is None or self._declared_end is None or asked < self.end - 1e-9:
            return
        if self._declared_end - self.end > max(2 / self.fps, 0.5):
            raise DecodeError(
                f"{self.path}: ends after {self.end:.1f} s of {self._declared_end:.1f} s: the file is cut short."
            )

    def _declares(self, stream: VideoStream) -> float | None:
        """When the container says that the last frame stops being shown; None if it speaks of other tracks as well."""
        end = declared_end(self._opened(), stream)
        if end is not None:
            end -= (self._start or 0) * self._time_base
        elif self._format == "avi":  # FFmpeg shortens the duration of a file that is cut short, but not this
            end = stream.frames * self._time_base
        return end if end is not None and end > 0 else None

    def _first_pts(self, has_b_frames: bool, coding: str) -> int | None:
        """When the first frame is shown, on the container's clock; None: nothing tells, frames are counted.

        AVI has no times of presentation, and FFmpeg makes some up that are wrong for B-frames. But MPEG-4's decoder gives a
        frame for each packet, some packets later, so frames are shown as far apart as those packets were to be decoded.
        """
        packets = self._packets()
        first = next(packets, None)
        if first is None:
            return None
        self._begun, self._fresh = (
            (first, packets),
            True,
        )  # read on: opening the file anew costs as much as a small clip
        if self._format != "avi" or not has_b_frames:
            return first.pts
        if coding in _REORDERED:
            return None
        with self._reported():
            frame = next((frame for packet in self._packets() for frame in packet.decode()), None)
        self._rewind()
        self._by_dts = frame is not None and frame.dts is not None
        return frame.dts if frame is not None else None

    def _scan(self) -> Timing:
        self._rewind()
        pts: list[int] = []
        count, last, timed = 0, 0, True
        for packet in self._packets():
            if packet.size == 0 or packet.is_discard:  # the flush at the end; cut away by an edit list
                continue
            count += 1
            if packet.pts is None:
                timed = False
            else:
                pts.append(packet.pts)
                last = max(last, packet.pts + (packet.duration or 0))
        self._rewind()
        if not count:
            raise DecodeError(f"{self.path}: its video stream is empty.")
        if not timed:
            return Timing(None, count, None)
        pts.sort()
        if last == pts[-1] and count > 1:  # no duration on the last packet: as long as the others
            last += (pts[-1] - pts[0]) // (count - 1)
        return Timing(pts, count, (last - pts[0]) * self._time_base)
