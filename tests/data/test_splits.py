"""Training and validation: nothing lost, nothing twice, no group divided."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unveil.data import Manifest, Row, order, split
from unveil.errors import UserError


def files(**classes: int) -> Manifest:
    return Manifest.of(Row(f"/d/{name}/{i}.mp4", name) for name, count in classes.items() for i in range(count))


def keys(manifest: Manifest) -> Counter:
    return Counter((row.path, row.start) for row in manifest)


rows = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from(["", "a", "b", "a;b", "c"]), st.sampled_from(["", "", "g", "h"])),
    min_size=1,
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(rows=rows, fraction=st.floats(0.01, 0.9), seed=st.integers(0, 3))
def test_properties(rows, fraction, seed):
    manifest = Manifest.of(
        Row(f"/d/{file}.mp4", label, float(i), i + 1.0, "", f"{group}{file % 3}" if group else "")
        for i, (file, label, group) in enumerate(rows)
    )
    try:
        train, val = split(manifest, fraction, seed)
    except UserError:
        # Only when it is impossible: one group, or a class (or every group) that no second group could stand for.
        groups, holds = set(), defaultdict(set)
        for row in manifest:
            group = row.group or row.path
            groups.add(group)
            for name in row.label.split(";"):
                holds[name].add(group)
        lonely = {next(iter(members)) for members in holds.values() if len(members) == 1}
        assert len(groups) < 2 or (lonely and not manifest.multi_label) or lonely == groups
        return
    assert keys(train) + keys(val) == keys(manifest)
    assert len(train) > 0
    assert len(val) > 0
    assert not {r.group or r.path for r in train} & {r.group or r.path for r in val}
    assert train.classes == manifest.classes
    again = split(manifest, fraction, seed)
    assert list(again[0]) == list(train)
    assert list(again[1]) == list(val)
    backwards = split(manifest.select(list(range(len(manifest)))[::-1]), fraction, seed)
    assert keys(backwards[1]) == keys(val)  # names decide, not the order


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(2, 60), min_size=1, max_size=6), fraction=st.floats(0.02, 0.5), seed=st.integers(0, 9)
)
def test_each_class_gives_its_share(counts, fraction, seed):
    manifest = files(**{f"c{i}": count for i, count in enumerate(counts)})
    val = Counter(split(manifest, fraction, seed)[1].column("label"))
    for i, count in enumerate(counts):
        assert 1 <= val[f"c{i}"] <= count - 1
        assert abs(val[f"c{i}"] - max(1, fraction * count)) <= 0.5 + 1e-6


@settings(max_examples=100, deadline=None)
@given(
    counts=st.lists(st.integers(2, 60), min_size=1, max_size=6), fraction=st.floats(0.02, 0.98), seed=st.integers(0, 9)
)
def test_single_files_are_drawn_as_one_after_the_other(counts, fraction, seed):
    manifest = files(**{f"c{i}": count for i, count in enumerate(counts)})
    expected = set()
    for i, count in enumerate(counts):
        names = [f"c{i}/{j}.mp4" if len(counts) > 1 else f"{j}.mp4" for j in range(count)]
        want, have = max(1.0, fraction * count), 0
        for name in sorted(names, key=lambda name: order.digests([name], seed)[0])[:-1]:
            if abs(want - have) - abs(want - have - 1) > 1e-8:
                expected.add(f"/d/c{i}/{name.rpartition('/')[2]}")
                have += 1
    assert set(split(manifest, fraction, seed)[1].column("path")) == expected


def test_another_seed_another_division():
    manifest = files(a=50, b=50)
    assert keys(split(manifest, 0.2, 0)[1]) != keys(split(manifest, 0.2, 1)[1])


def test_where_the_data_lie_does_not_matter():
    here = files(a=20, b=20)
    there = Manifest.of(row._replace(path="/else/where" + row.path) for row in here)
    assert [r.path for r in split(there, 0.2)[1]] == ["/else/where" + r.path for r in split(here, 0.2)[1]]


def test_columns_come_first():
    def marked(*splits: str) -> Manifest:
        return Manifest.of(Row(f"/d/{i}.mp4", "ab"[i % 2], split=name) for i, name in enumerate(splits))

    train, val = split(marked("train", "val", "test", "", "val"), 0.5)
    assert ([r.split for r in train], [r.split for r in val]) == (["train", ""], ["val", "val"])
    train, val = split(marked("train", "test", "train"), 0.5)
    assert ([r.split for r in train], [r.split for r in val]) == (["train", "train"], ["test"])
    train, val = split(marked(*["train"] * 10), 0.2)
    assert len(val) == 2
    with pytest.raises(UserError, match="nothing to train on"):
        split(marked("val", "test"), 0.5)


def test_what_cannot_be_divided():
    with pytest.raises(UserError, match="1 file"):
        split(files(a=1), 0.1)
    segments = Manifest.of(Row("/d/a.mp4", "a", float(i), i + 1.0) for i in range(5))
    with pytest.raises(UserError, match=r"1 file \(or group\)"):
        split(segments, 0.1)
    with pytest.raises(UserError, match="class 'b' has one file"):
        split(files(a=5, b=1, c=1), 0.1)
    with pytest.raises(UserError, match="no group can be spared"):
        split(Manifest.of([Row("/d/1.mp4", "a;b"), Row("/d/2.mp4", "c;d")]), 0.5)
    for fraction in (0.0, 1.0, -1.0):
        with pytest.raises(UserError, match="--val-fraction"):
            split(files(a=5), fraction)


def test_large_groups_still_validate_each_class():
    manifest = Manifest.of(Row(f"/d/{name}{i}.mp4", name, group=f"{name}{i // 10}") for name in "ab" for i in range(30))
    train, val = split(manifest, 0.05)
    assert val.classes == train.classes == ["a", "b"]
    assert Counter(val.column("label")) == {"a": 10, "b": 10}


PLAIN = [Row(f"/d/{'ab'[i % 2]}/{i:02d}.mp4", "ab"[i % 2]) for i in range(40)]
GROUPED = [row._replace(group=f"g{i // 4}" if i < 20 else "") for i, row in enumerate(PLAIN)]
COPIES = [None if i % 5 == 4 else f"{i % 13:032x}" for i in range(40)]


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(
    ("rows", "content", "seed", "drawn"),
    [
        (PLAIN, None, 0, [1, 4, 18, 22, 26, 33, 37, 39]),
        (PLAIN, None, 5, [1, 2, 4, 8, 10, 25, 35, 39]),
        (GROUPED, None, 0, [8, 9, 10, 11, 22, 26, 33, 39]),
        (GROUPED, None, 5, [4, 5, 6, 7, 25, 32, 38, 39]),
        (PLAIN, COPIES, 0, [1, 4, 5, 14, 18, 22, 27, 31, 35]),
        (PLAIN, COPIES, 5, [1, 2, 10, 15, 23, 27, 28, 36, 39]),
        (GROUPED, COPIES, 0, [8, 9, 10, 11, 22, 26, 35, 39]),
        (GROUPED, COPIES, 5, [4, 5, 6, 7, 25, 32, 38, 39]),
    ],
)
def test_what_is_drawn_never_changes(rows, content, seed, drawn, kept):
    table = Manifest.of(rows).table
    if content:
        table = table.append_column("hash", pa.array(content, pa.string()))
    if kept:
        digests = order.digests(Manifest(table).relative_paths(), order.KEPT_SEED)
        table = table.append_column(order.FIELD, pa.array(digests))
    assert [int(path[-6:-4]) for path in split(Manifest(table), 0.2, seed)[1].column("path")] == drawn


def test_digests_that_were_kept_are_used_only_where_they_are_right():
    manifest = Manifest.of(PLAIN)
    right = order.digests(manifest.relative_paths(), 0)

    def found(table: pa.Table, digests: list | np.ndarray, seed: int = 0) -> np.ndarray:
        kept = Manifest(table.append_column(order.FIELD, pa.array(digests, pa.uint64())))
        return order.digests_of_rows(kept, seed)

    unlike = right.copy()
    unlike[1] += 1
    many = Manifest.of(Row(f"/d/a/{i}.mp4", "a") for i in range(500))
    own = order.digests(many.relative_paths(), 0)
    seen = own.copy()
    seen[3] += 1  # not among those that are looked at: taken as it is, so that the column is seen to be used
    np.testing.assert_array_equal(found(many.table, seen), seen)
    np.testing.assert_array_equal(found(many.table, seen, seed=1), order.digests(many.relative_paths(), 1))
    np.testing.assert_array_equal(found(manifest.table, unlike), right)
    np.testing.assert_array_equal(found(manifest.table, [None, *right[1:]]), right)
    below = Manifest.of(row for row in PLAIN if "/a/" in row.path)  # /d/a is what all have in common here
    np.testing.assert_array_equal(found(below.table, right[::2]), order.digests(below.relative_paths(), 0))
