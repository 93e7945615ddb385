"""A decoded frame → the picture that a player shows, or a part of it: 8-bit RGB, upright, without alpha."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from unveil.data.boxes import Box

# In these, each pixel's colour is computed from its own brightness and the nearest colour sample, so that a part converts as
# in the whole. Elsewhere colours are interpolated over a part's edges.
_LOCAL = {"yuv420p", "yuvj420p"}
_ALIGNMENT = 64  # columns: vectors begin and end where they do in the whole, and nothing is read unaligned


class Pictures:
    """Pictures of one video's frames, all of one size.

    Args:
        height, width: as coded; a stream may change its size on the way, and its frames are brought to this.
    """

    def __init__(self, height: int, width: int):
        self._size = (height, width)
        self._reformatter = VideoReformatter()
        self._cutter: _Cutter | None = None

    def size(self, frame: VideoFrame) -> tuple[int, int]:
        """(height, width) as shown."""
        height, width = self._size
        return (width, height) if _turns(display_matrix(frame)) else (height, width)

    def of(self, frame: VideoFrame, out: np.ndarray | None = None, box: Box | None = None) -> np.ndarray:
        """uint8 [H,W,3].

        Args:
            frame: decoded.
            out: an array of that shape to write into; None: a new one.
            box: the part of the shown picture that is wanted; only that is converted, where it comes out the same.
        """
        height, width = self._size
        matrix = display_matrix(frame)
        part = coded = Box(0, 0, height, width) if box is None else _coded(box, self._size, matrix)
        local = frame.format.name in _LOCAL and (frame.height, frame.width) == self._size and height % 2 == 0
        if box is not None and local:
            right = min(width, _up(coded.left + coded.width, _ALIGNMENT))
            top, left = coded.top // 2 * 2, coded.left // _ALIGNMENT * _ALIGNMENT
            around = Box(top, left, _up(coded.top + coded.height, 2) - top, right - left)
            if self._cutter is None or not self._cutter.fits(frame, around):
                self._cutter = _Cutter(frame, around)
            frame = self._cutter(frame)
            height, width = around.height, around.width
            part = coded._replace(top=coded.top - top, left=coded.left - left)
        # One thread: by default swscale starts one per core for every frame, which costs twenty times a small frame's
        # conversion, and workers already share the cores.
        rgb = self._reformatter.reformat(frame, width, height, format="rgb24", threads=1)
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:height, : width * 3]  # padded
        whole = rows.reshape(height, width, 3)
        picture = oriented(whole[part.top : part.top + part.height, part.left : part.left + part.width], matrix)
        if out is None:
            return np.array(picture)
        out[...] = picture
        return out


class _Cutter:
    """FFmpeg's crop filter, which moves pointers and copies nothing."""

    def __init__(self, frame: VideoFrame, box: Box):
        self._kind = (frame.format.name, frame.height, frame.width, box)
        graph = Graph()
        graph.threads = 1
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
        )
        crop = graph.add("crop", f"w={box.width}:h={box.height}:x={box.left}:y={box.top}:exact=1")
        graph.link_nodes(source, crop, graph.add("buffersink")).configure()
        self._graph = graph

    def fits(self, frame: VideoFrame, box: Box) -> bool:
        return self._kind == (frame.format.name, frame.height, frame.width, box)

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        self._graph.vpush(frame)
        return self._graph.vpull()


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


def display_matrix(frame: VideoFrame) -> np.ndarray | None:
    """The linear part [2,2] of the frame's display matrix: (x, y) @ M is where a pixel is shown."""
    data = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2]


def oriented(array: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """A view of [H,W,3], turned and mirrored in quarter turns as the display matrix says."""
    array = array.transpose(1, 0, 2) if _turns(matrix) else array
    down, across = _mirrors(matrix)
    array = array[::-1] if down else array
    return array[:, ::-1] if across else array


def _coded(box: Box, size: tuple[int, int], matrix: np.ndarray | None) -> Box:
    """Where a part of the shown picture lies in the coded one of `size`: `oriented` backwards."""
    height, width = reversed(size) if _turns(matrix) else size
    down, across = _mirrors(matrix)
    top = height - box.top - box.height if down else box.top
    left = width - box.left - box.width if across else box.left
    return Box(left, top, box.width, box.height) if _turns(matrix) else Box(top, left, box.height, box.width)


def _turns(matrix: np.ndarray | None) -> bool:
    """Whether the axes change places."""
    if matrix is None:
        return False
    (a, b), (c, d) = matrix
    return abs(int(b)) + abs(int(c)) > abs(int(a)) + abs(int(d))


def _mirrors(matrix: np.ndarray | None) -> tuple[bool, bool]:
    """Whether up and down, left and right change places, after the turn."""
    if matrix is None or not matrix.any():
        return False, False
    (a, b), (c, d) = matrix
    across, down = (c, b) if _turns(matrix) else (a, d)
    return bool(down < 0), bool(across < 0)
