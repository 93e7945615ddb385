"""Copies: found by the hashes of the content, whatever shape the columns have."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from unveil.data import Manifest, Row
from unveil.data.audit import copies_across, surely_differ

digests = st.integers(0, 2**128 - 1).map(lambda number: f"{number:032x}") | st.integers(0, 9).map("{:032x}".format)


@settings(max_examples=200, deadline=None)
@given(
    columns=st.lists(st.lists(st.lists(st.none() | st.just("") | digests, max_size=5), max_size=3), max_size=3),
    skipped=st.integers(0, 2),
)
def test_different_is_said_only_of_what_is(columns, skipped):
    chunked = [
        pa.chunked_array([pa.array(c, pa.string())[skipped:] for c in column], pa.string()) for column in columns
    ]
    texts = [text for column in chunked for text in column.to_pylist()]
    regular = all(text for text in texts)
    assert surely_differ(*chunked) == (regular and len(set(texts)) == len(texts))


def with_hashes(hashes: list[str | None], split: str) -> Manifest:
    rows = Manifest.of(Row(f"/d/{split}/{i}.mp4", "a", split=split) for i in range(len(hashes)))
    return Manifest(rows.table.append_column("hash", pa.array(hashes, pa.string())))


@given(train=st.lists(st.none() | digests, max_size=20), held_out=st.lists(st.none() | digests, max_size=20))
def test_copies_across(train, held_out):
    expected = [f"/d/val/{i}.mp4" for i, text in enumerate(held_out) if text is not None and text in train]
    assert copies_across(with_hashes(train, "train"), with_hashes(held_out, "val")) == expected
