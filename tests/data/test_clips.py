"""Which frames make a clip: the arithmetic of dense and uniform sampling."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unveil.data import Dense, Uniform


def frames_of(times: list[float], fps: float, start: float = 0.0) -> list[int]:
    return [int((time - start) * fps + 1e-9) for time in times]


@given(
    count=st.integers(1, 300),
    frames=st.integers(1, 16),
    stride=st.integers(1, 8),
    fps=st.sampled_from([10.0, 25.0, 30000 / 1001]),
    start=st.integers(0, 50),
    clips=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_dense(count, frames, stride, fps, start, clips, seed):
    begin, end = start / fps, (start + count) / fps
    clip = Dense(frames, stride)
    drawn = clip.times(begin, end, fps, torch.Generator().manual_seed(seed))
    assert drawn == clip.times(begin, end, fps, torch.Generator().manual_seed(seed))
    span = (frames - 1) * stride + 1
    views = clip.views(begin, end, fps, clips)
    assert len(views) == clips
    for times in [drawn, *views]:
        assert len(times) == frames
        assert all(begin <= time < end for time in times)
        numbers = frames_of(times, fps, begin)
        first = numbers[0]
        assert numbers == [min(first + i * stride, count - 1) for i in range(frames)]  # the last frame repeats
        assert 0 <= first <= max(0, count - span)
    firsts = [frames_of(times, fps, begin)[0] for times in views]
    spare = max(0, count - span)
    assert firsts == ([spare // 2] if clips == 1 else [int(spare * k / (clips - 1)) for k in range(clips)])


def test_dense_is_uniform_over_all_places():
    generator = torch.Generator().manual_seed(0)
    firsts = [frames_of(Dense(4, 2).times(0, 1.2, 10, generator), 10)[0] for _ in range(1200)]
    counts = torch.bincount(torch.tensor(firsts))
    assert len(counts) == 6  # 12 frames, a clip spans 7
    assert counts.min() > 150


@given(frames=st.integers(1, 16), clips=st.integers(1, 5), seed=st.integers(0, 1000))
def test_uniform(frames, clips, seed):
    clip = Uniform(frames)
    times = clip.times(2.0, 12.0, 25, torch.Generator().manual_seed(seed))
    segment = 10 / frames
    assert [int((time - 2) / segment) for time in times] == list(range(frames))
    views = clip.views(2.0, 12.0, 25, clips)
    assert len(views) == clips
    for view, moments in enumerate(views):
        assert moments == pytest.approx([2 + (i + (view + 0.5) / clips) * segment for i in range(frames)])


def test_settings_are_checked():
    for make in (lambda: Dense(0, 1), lambda: Dense(1, 0), lambda: Uniform(0), lambda: Dense(1, 1).views(0, 1, 1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            make()
    assert repr(Dense(16, 4)) == "Dense(frames=16, stride=4)"
