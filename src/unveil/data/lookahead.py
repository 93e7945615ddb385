"""Which packets a decoder is given, when it is known beforehand which frames are wanted.

Packets come in decoding order, frames are wanted in the order they are shown in. So packets are read ahead by as much as a
codec may reorder; then it is settled which frame is shown when, and what no wanted frame is predicted from stays undecoded:
packets that no picture refers to, and everything before a key frame from which the next wanted frame can be reached.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

REORDER = 16
"""Frames at most that are decoded before a frame and shown after it: the size of a decoded picture buffer (H.264 A.3.1,
H.265 A.4.2)."""

_MOST_QUEUED = 256  # packets waiting to be settled: more than any group of B-frames
_MOST_PENDING, _MOST_PENDING_BYTES = 256, 32 << 20  # settled, waiting for a wanted frame that needs them


class Packet(Protocol):
    @property
    def pts(self) -> int | None: ...
    @property
    def duration(self) -> int | None: ...
    @property
    def size(self) -> int: ...
    @property
    def is_discard(self) -> bool: ...


AnyPacket = TypeVar("AnyPacket", bound=Packet)


class UnclearError(Exception):
    """Times of packets do not tell which frame is shown when."""


class Choice(Protocol):
    """What is wanted."""

    def of(self, pts: int, following: int) -> list[float]:
        """The moments for which the frame `pts` is wanted, which is shown until `following`."""
        ...

    def of_last(self, pts: int, duration: int | None) -> list[float]:
        """The moments for which the last frame of all is wanted."""
        ...


class Lookahead(Generic[AnyPacket]):
    """Packets in, packets that are to be decoded out; a None among them: empty the decoder and begin anew.

    Args:
        choice: asked once for each frame, in the order they are shown in.
        disposable: whether no other frame is predicted from a packet's.
        entry: whether decoding can begin with a packet: a key frame.
        first: frames shown before this one are left out: the leading frames of an open group of pictures.
        reorder: see `REORDER`; 0 where packets come in the order they are shown in.

    `wanted` holds (pts, moments) of the frames chosen, in order; whoever decodes takes them off. `latest` is the latest
    time of all packets added.
    """

    def __init__(
        self,
        choice: Choice,
        disposable: Callable[[AnyPacket], bool],
        entry: Callable[[AnyPacket], bool],
        first: int | None = None,
        reorder: int = REORDER,
    ):
        self.wanted: deque[tuple[int, list[float]]] = deque()
        self.latest: int | None = None
        self._latest_duration: int | None = None
        self._choice = choice
        self._disposable = disposable
        self._entry = entry
        self._first = first
        self._reorder = reorder
        self._coming: list[int] = []  # heap of times not settled
        self._held: int | None = None  # the next to be decided: it lasts until the one after it
        self._decided: float = float("-inf")
        self._queue: deque[AnyPacket] = deque()  # in decoding order, of undecided use
        self._pending: list[AnyPacket] = []  # decided; decoded when a wanted frame comes that may need them
        self._unfed: deque[int] = deque()  # wanted, not handed out yet
        self._begun = False

    def add(self, packet: AnyPacket) -> list[AnyPacket | None]:
        """Raises UnclearError: no time, one that was there before, or the clock runs backwards."""
        if not packet.is_discard:  # cut away by an edit list: decoded as a reference, never shown
            pts = packet.pts
            if pts is None or pts == self._held or pts in self._coming or pts <= self._decided:
                raise UnclearError
            if self._first is not None and pts < self._first:
                return []
            heapq.heappush(self._coming, pts)
            if self.latest is None or pts > self.latest:
                self.latest, self._latest_duration = pts, packet.duration
        self._queue.append(packet)
        if len(self._queue) > _MOST_QUEUED:
            raise UnclearError
        if len(self._coming) > self._reorder:
            self._settle()
        return self._released()

    def finish(self) -> list[AnyPacket | None]:
        """Nothing beyond what is wanted so far will be: the rest of what that needs."""
        self._decided = float("inf")
        return self._released()

    def end(self) -> list[AnyPacket | None]:
        """The video has ended: the rest."""
        while self._coming:
            self._settle()
        if self._held is not None:
            self._want(self._held, self._choice.of_last(self._held, self._latest_duration))
        return self.finish()

    def _settle(self) -> None:
        following = heapq.heappop(self._coming)
        if self._held is not None:
            if following <= self._held:
                raise UnclearError
            self._want(self._held, self._choice.of(self._held, following))
        self._held = following

    def _want(self, pts: int, moments: list[float]) -> None:
        if moments:
            self.wanted.append((pts, moments))
            self._unfed.append(pts)
        self._decided = pts

    def _released(self) -> list[AnyPacket | None]:
        out: list[AnyPacket | None] = []
        while self._queue:
            packet = self._queue[0]
            if not packet.is_discard and packet.pts is not None and packet.pts > self._decided:
                break
            self._queue.popleft()
            out += self._release(packet)
        return out

    def _release(self, packet: AnyPacket) -> list[AnyPacket | None]:
        if packet.is_discard:
            if not self._disposable(packet):
                self._pending.append(packet)
            return self._overflow()
        pts = packet.pts
        assert pts is not None
        if self._first is not None and pts < self._first:
            return []
        wanted = pts in self._unfed
        spare = self._disposable(packet)  # asked of every packet: it follows the parameter sets
        out: list[AnyPacket | None] = []
        # All that is shown before it has been decided by now. Unless some of that, decoded after it, is still wanted
        # (an open group of pictures), decoding can begin here.
        if self._pending and not any(other < pts for other in self._unfed) and self._entry(packet):
            self._pending.clear()
            self._first = pts
            if self._begun:
                out.append(None)
        if wanted or not spare:
            self._pending.append(packet)
        if not wanted:
            return out + self._overflow()
        self._unfed.remove(pts)
        return out + self._flushed()

    def _overflow(self) -> list[AnyPacket | None]:
        """What waits must stay small, however far away the next key frame and the next wanted frame are."""
        if len(self._pending) > _MOST_PENDING or sum(packet.size for packet in self._pending) > _MOST_PENDING_BYTES:
            return self._flushed()
        return []

    def _flushed(self) -> list[AnyPacket | None]:
        out: list[AnyPacket | None] = list(self._pending)
        self._pending.clear()
        self._begun = self._begun or bool(out)
        return out


class Clock(Protocol):
    """What is known of a video's times; all in seconds from its first frame."""

    tolerance: float
    """So much before a frame's time, it is shown already."""

    def seconds(self, pts: int) -> float: ...

    def ends_with(self, pts: int, duration: int | None) -> float:
        """The last frame of all is shown from `pts`: until when."""
        ...

    def check_gap(self, since: float, until: float) -> None:
        """Raises DecodeError if no frame is shown for so long."""
        ...

    def check_end(self, asked: float) -> None:
        """Raises DecodeError if the file should go on to `asked` but ends before."""
        ...


class AtTimes:
    """The frames shown at ascending times; a time before the first frame means the first.

    Args:
        times: ascending, possibly endless.
        clock: of the video.
        clamp: times after the end mean the last frame; otherwise they are not taken.
    """

    def __init__(self, times: Iterable[float], clock: Clock, clamp: bool):
        self._times = iter(times)
        self._clock = clock
        self._clamp = clamp
        self.next = next(self._times, None)
        self.ended = False

    def of(self, pts: int, following: int) -> list[float]:
        until = self._clock.seconds(following)
        moments: list[float] = []
        while self.next is not None and until > self.next + self._clock.tolerance:
            if not moments:
                self._clock.check_gap(self._clock.seconds(pts), until)
            moments.append(self.take())
        return moments

    def of_last(self, pts: int, duration: int | None) -> list[float]:
        self.ended = True
        until = self._clock.ends_with(pts, duration) - 1e-9
        moments: list[float] = []
        while self.next is not None and (self._clamp or self.next < until):
            if self.next >= until:
                self._clock.check_end(self.next)
            moments.append(self.take())
        return moments

    def take(self) -> float:
        time = self.next
        assert time is not None
        self.next = next(self._times, None)
        return time

    def rest(self) -> Iterator[float]:
        """What was not asked yet."""
        while self.next is not None:
            yield self.take()


class EachNth:
    """Each `stride`-th frame, from the one shown at `start` to before `end` (seconds)."""

    def __init__(self, stride: int, start: float, end: float, clock: Clock):
        self._stride = stride
        self._start = start + clock.tolerance
        self._end = end
        self._clock = clock
        self._number = 0
        self.done = False

    def of(self, pts: int, following: int) -> list[float]:
        if self._clock.seconds(following) <= self._start:
            return []  # the next one is shown at the start, or comes before it too
        return self._counted(pts)

    def of_last(self, pts: int, duration: int | None) -> list[float]:
        self._clock.ends_with(pts, duration)
        return self._counted(pts)

    def _counted(self, pts: int) -> list[float]:
        time = self._clock.seconds(pts)
        self.done = self.done or time >= self._end
        if self.done:
            return []
        self._number += 1
        return [time] if (self._number - 1) % self._stride == 0 else []
