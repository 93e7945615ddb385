"""manifest.parquet beside the files: moved, foreign, hostile, out of date."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unveil.data import Manifest, Row, manifest_file, signal_of, split
from unveil.data.audit import copies_across, duplicates
from unveil.errors import UserError
from unveil.serve.windows import BadFile, files

MP4 = {".mp4"}


def measured(manifest: Manifest, **columns: list) -> pa.Table:
    """With measured columns, null where they are not given."""
    table = manifest.table
    for field in manifest_file.MEASURED:
        table = table.append_column(field, pa.array(columns.get(field.name, [None] * len(table)), field.type))
    return table


def keep(folder: Path, **columns: list) -> Path:
    """List a folder, and leave its manifest in it."""
    source = manifest_file.survey(str(folder), str(folder), {".mp4", ".png"})
    file = folder / manifest_file.NAME
    manifest_file.write(measured(Manifest.scan([folder], {".mp4", ".png"}, anew=True), **columns), str(file), [source])
    manifest_file.stamp(str(file), [source])
    return file


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "data"
    for name in ("a/1.mp4", "a/2.mp4", "b/3.mp4", "b/picture.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def quiet(text: str) -> None:
    raise AssertionError(text)


def test_it_speaks_for_its_folder_wherever_that_is(folder, tmp_path):
    before = Manifest.scan([folder], MP4)
    file = keep(folder)
    assert pq.read_table(file)["path"].to_pylist() == ["a/1.mp4", "a/2.mp4", "b/3.mp4", "b/picture.png"]
    assert list(Manifest.scan([folder], MP4)) == list(Manifest.scan([file], MP4)) == list(before)
    assert Manifest.scan([folder], {".png"}).column("label") == ["b"]
    assert signal_of([folder]) == "video"
    for way in (shutil.copytree, shutil.move):  # a copy has other times, the names are the same
        new = tmp_path / way.__name__
        way(folder, new)
        manifest = Manifest.scan([new], MP4, warn=quiet)
        assert [Path(path).relative_to(new).as_posix() for path in manifest.column("path")] == [
            "a/1.mp4",
            "a/2.mp4",
            "b/3.mp4",
        ]
        assert manifest.hash == before.hash
    with pytest.raises(UserError, match=r"none of its files ends in \.gif"):
        Manifest.scan([new], {".gif"})
    several = Manifest.scan([new, tmp_path / "copytree/a"], MP4)
    assert several.column("error") == [None] * 5  # one was measured, the other not


@pytest.mark.parametrize("path", ["../x.mp4", "/etc/x.mp4", "a/../../x.mp4", "a/../b/3.mp4", "..", "", "a\0.mp4"])
def test_paths_that_leave_the_folder_are_refused(folder, path):
    pq.write_table(Manifest.of([Row("a/1.mp4"), Row(path)]).table, folder / "manifest.parquet")
    with pytest.raises(UserError, match=r"row 1: the path .* leaves the folder .* link") as caught:
        Manifest.scan([folder], MP4)
    assert repr(path) in str(caught.value)


def test_names_with_dots_stay(folder):
    names = ["a/..1.mp4", "..a/1.mp4", "a/...", "12:30.mp4"]
    pq.write_table(Manifest.of([Row(name) for name in names]).table, folder / "manifest.parquet")
    paths = manifest_file.read(str(folder / "manifest.parquet"))[0]["path"].to_pylist()
    assert paths == [f"{folder}/{name}" for name in names]


def test_a_link_inside_that_leads_out_is_the_users_own_doing(folder, tmp_path):
    shutil.move(folder / "a", tmp_path / "elsewhere")
    (folder / "a").symlink_to(tmp_path / "elsewhere")
    keep(folder)
    assert len(Manifest.scan([folder], MP4, warn=quiet)) == 3


def test_tables_that_others_wrote(folder):
    file = folder / "manifest.parquet"
    pq.write_table(pa.table({"path": ["a/1.mp4", "b/3.mp4"], "label": ["x", None], "split": pa.nulls(2)}), file)
    assert list(Manifest.scan([folder], MP4)) == [Row(f"{folder}/a/1.mp4", "x"), Row(f"{folder}/b/3.mp4")]
    pq.write_table(pa.table({"file": ["a/1.mp4"]}), file)
    with pytest.raises(UserError, match="not a manifest"):
        Manifest.scan([folder], MP4)
    pq.write_table(pa.table({"path": ["a/1.mp4"], "start": ["soon"]}), file)
    with pytest.raises(UserError, match="not a manifest"):
        Manifest.scan([folder], MP4)
    pq.write_table(pa.table({"path": ["a/1.mp4"], "split": ["dev"]}), file)
    with pytest.raises(UserError, match="column split: 'dev'"):
        Manifest.scan([folder], MP4)
    pq.write_table(pa.table({"path": pa.array(["a/1.mp4", None])}), file)
    with pytest.raises(UserError, match="without a path"):
        Manifest.scan([folder], MP4)
    whole = keep(folder).read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"not a manifest .* unveil data check"):
        Manifest.scan([folder], MP4)


def changes(folder: Path) -> list[str]:
    said: list[str] = []
    Manifest.scan([folder], MP4, warn=said.append)
    return said


def test_a_folder_that_changed_is_said(folder):
    keep(folder)
    assert changes(folder) == []
    (folder / "b/notes.txt").write_text("no media")
    (folder / "runs").mkdir()
    assert changes(folder) == []
    (folder / "b/4.mp4").write_bytes(b"")
    (folder / "c").mkdir()
    (folder / "c/5.mp4").write_bytes(b"")
    (folder / "a/1.mp4").unlink()
    assert changes(folder) == [
        f"{folder} changed since it was checked (2 files are new and 1 file is gone in {folder}): "
        "run `unveil data check` again."
    ]
    keep(folder)
    shutil.rmtree(folder / "b")
    assert "3 files are gone" in changes(folder)[0]
    with pytest.warns(UserWarning, match="changed since it was checked"):
        Manifest.scan([folder], MP4)


def test_a_list_that_changed_is_said(folder):
    (folder / "labels.csv").write_text("path,label\na/1.mp4,x\nb/3.mp4,y\n")
    keep(folder)
    (folder / "b/new.mp4").write_bytes(b"")  # the list decides
    assert changes(folder) == []
    (folder / "labels.csv").write_text("path,label\na/1.mp4,x\nb/3.mp4,x\n")
    assert "labels.csv is another" in changes(folder)[0]
    (folder / "labels.csv").unlink()
    assert "labels.csv is gone" in changes(folder)[0]
    keep(folder)
    (folder / "labels.csv").write_text("path,label\na/1.mp4,x\n")
    assert "labels.csv is new" in changes(folder)[0]


def test_an_unchanged_tree_costs_one_look_at_each_folder(folder, monkeypatch):
    keep(folder)
    monkeypatch.setattr(manifest_file, "_names", lambda *_: pytest.fail("the names are compared"))
    assert changes(folder) == []


def test_the_hash_knows_content_where_it_was_measured(folder):
    plain = Manifest.scan([folder], MP4)
    first = Manifest(measured(plain, hash=["x", "y", None]))
    second = Manifest(measured(plain, hash=["x", "z", None]))
    assert len({plain.hash, first.hash, second.hash}) == 3
    assert first.agrees(first.hash)
    assert not second.agrees(first.hash)
    # A check says more about the data, but does not change them.
    assert first.agrees(plain.hash)
    assert plain.agrees(first.hash)
    assert not plain.select([0, 1]).agrees(first.hash)
    assert not Manifest.of([*list(plain)[:2], plain.row(2)._replace(split="val")]).agrees(plain.hash)
    # Neither the division into chunks nor a window into a larger table changes it.
    table = first.table
    assert Manifest(pa.concat_tables([table.slice(0, 1), table.slice(1)])).hash == first.hash
    assert Manifest(table.slice(1)).hash == first.select([1, 2]).hash


def test_copies_stay_together(folder):
    rows = [Row(f"/d/{i}.mp4", "ab"[i % 2], float(s), s + 1.0) for i in range(40) for s in range(2)]
    table = measured(Manifest.of(rows), hash=[f"{i // 4}{i % 2}" for i in range(40) for _ in range(2)])
    for seed in range(5):
        train, held_out = split(Manifest(table), 0.2, seed)
        assert copies_across(train, held_out) == []
        assert len(held_out) == 16
        backwards = split(Manifest(table.take(list(range(len(table)))[::-1])), 0.2, seed)[1]
        assert sorted(backwards.column("path")) == sorted(held_out.column("path"))
    # A group that was named comes first: then copies may part, and are found.
    own = table.set_column(5, "group", pa.array([f"g{i}" for i in range(80)]))
    assert copies_across(*split(Manifest(own), 0.2))
    assert len(duplicates(Manifest(own))) == 20


def test_known_bad_files_are_not_opened(folder):
    keep(folder, error=[None, "no video", "", None])
    manifest = Manifest.scan([folder], MP4)
    assert manifest.bad_files() == [(f"{folder}/a/2.mp4", f"{folder}/a/2.mp4: no video")]
    assert [Path(path).name for path in manifest.readable().column("path")] == ["1.mp4", "3.mp4"]
    assert files([folder], MP4) == [
        folder / "a/1.mp4",
        BadFile(str(folder / "a/2.mp4"), f"{folder}/a/2.mp4: no video"),
        folder / "b/3.mp4",
    ]


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_a_folder_that_cannot_be_written_to_can_be_read(folder):
    keep(folder)
    folder.chmod(0o555)
    try:
        assert changes(folder) == []
    finally:
        folder.chmod(0o755)
