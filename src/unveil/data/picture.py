"""A decoded frame → the picture that a player shows: 8-bit RGB, upright, without alpha."""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter


class Pictures:
    """Pictures of one video's frames, all of one size.

    Args:
        height, width: as coded; a stream may change its size on the way, and its frames are brought to this.
    """

    def __init__(self, height: int, width: int):
        self._size = (height, width)
        self._reformatter = VideoReformatter()

    def of(self, frame: VideoFrame, out: np.ndarray | None = None) -> np.ndarray:
        """uint8 [H,W,3].

        Args:
            frame: decoded.
            out: an array of that shape to write into; None: a new one.
        """
        height, width = self._size
        # One thread: by default swscale starts one per core for every frame, which costs twenty times a small frame's
        # conversion, and workers already share the cores.
        rgb = self._reformatter.reformat(frame, width, height, format="rgb24", threads=1)
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[
            :height, : width * 3
        ]  # lines are padded
        picture = oriented(rows.reshape(height, width, 3), display_matrix(frame))
        if out is None:
            return np.array(picture)
        out[...] = picture
        return out


def display_matrix(frame: VideoFrame) -> np.ndarray | None:
    """The linear part [2,2] of the frame's display matrix: (x, y) @ M is where a pixel is shown."""
    data = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2]


def oriented(array: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """A view of [H,W,3], turned and mirrored in quarter turns as the display matrix says."""
    if matrix is None or not matrix.any():
        return array
    (a, b), (c, d) = matrix
    if abs(int(b)) + abs(int(c)) > abs(int(a)) + abs(int(d)):  # the axes change places
        array = array.transpose(1, 0, 2)
        across, down = c, b
    else:
        across, down = a, d
    array = array[::-1] if down < 0 else array
    return array[:, ::-1] if across < 0 else array
