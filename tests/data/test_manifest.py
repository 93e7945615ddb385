"""Folders and lists of labels → rows; the mistakes that a person makes in them."""

from __future__ import annotations

import os
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from unveil.data import Manifest, Row
from unveil.errors import UserError

MP4 = {".mp4", ".gif"}


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def short(manifest: Manifest, root: Path) -> list[tuple[str, str, str]]:
    return [(Path(row.path).relative_to(root).as_posix(), row.label, row.split) for row in manifest]


def test_folder_per_class(tmp_path):
    touch(
        tmp_path,
        "b/2.mp4",
        "b/10.MP4",
        "a/x.gif",
        "top.mp4",
        "a/deep/y.mp4",
        "a/notes.txt",
        ".hidden/z.mp4",
        "a/.z.mp4",
    )
    manifest = Manifest.scan([tmp_path], MP4)
    assert short(manifest, tmp_path) == [
        ("a/deep/y.mp4", "a/deep", ""),
        ("a/x.gif", "a", ""),
        ("b/10.MP4", "b", ""),
        ("b/2.mp4", "b", ""),
        ("top.mp4", "", ""),
    ]
    assert manifest.classes == ["a", "a/deep", "b"]
    assert not manifest.multi_label
    assert manifest.row(0) == Row(str(tmp_path / "a/deep/y.mp4"), "a/deep")
    with pytest.raises(IndexError):
        manifest.row(5)
    assert "5 rows, 3 classes" in repr(manifest)


def test_split_folders(tmp_path):
    touch(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "val/a/3.mp4", "test/4.mp4")
    manifest = Manifest.scan([tmp_path], MP4)
    assert short(manifest, tmp_path) == [
        ("test/4.mp4", "", "test"),
        ("train/a/1.mp4", "a", "train"),
        ("train/b/2.mp4", "b", "train"),
        ("val/a/3.mp4", "a", "val"),
    ]
    touch(tmp_path, "validation/a/5.mp4")
    with pytest.raises(UserError, match="beside validation/"):
        Manifest.scan([tmp_path], MP4)


def test_several_paths_files_and_lists(tmp_path):
    touch(tmp_path, "one/1.mp4", "2.mp4", "lists/3.mp4")
    (tmp_path / "lists/own.csv").write_text("path,label\n3.mp4,x\nno/../3.mp4,\n")
    manifest = Manifest.scan([tmp_path / "one", str(tmp_path / "2.mp4"), tmp_path / "lists/own.csv"], MP4)
    assert [os.path.basename(row.path) for row in manifest] == ["1.mp4", "2.mp4", "3.mp4", "3.mp4"]
    assert [row.label for row in manifest] == ["", "", "x", ""]


def test_labels_csv(tmp_path):
    touch(tmp_path, "clips/a.mp4", "b, c.mp4", "ignored.mp4")
    (tmp_path / "labels.csv").write_text(
        "\ufeffpath, Label,start,end,split,group\r\n"
        "clips/a.mp4,run; jump,0.5,2,train,g1\r\n"
        "\r\n"
        "clips/a.mp4,run,2,,VAL,g1\r\n"
        '"b, c.mp4",,,,,\r\n',
        encoding="utf-8",
    )
    manifest = Manifest.scan([tmp_path], MP4)
    a = str(tmp_path / "clips/a.mp4")
    assert list(manifest) == [
        Row(a, "run; jump", 0.5, 2.0, "train", "g1"),
        Row(a, "run", 2.0, None, "val", "g1"),
        Row(str(tmp_path / "b, c.mp4")),
    ]
    assert manifest.classes == ["jump", "run"]
    assert manifest.multi_label


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.mp4,x\n", "line 1: unknown column 'file'"),
        ("path,lable\na.mp4,x\n", r"unknown column 'lable' \(label\?\)"),
        ("path\na.mp4\n", "line 1: no column 'label'"),
        ("path,label,label\na.mp4,x,x\n", "appears twice"),
        ("", "no column 'path'"),
        ("path,label\n", "no lines below"),
        ("path,label\na.mp4\n", "line 2: 1 columns where the header has 2"),
        ("path,label\na.mp4,x\nnone.mp4,x\n", "line 3, column path: no such file"),
        ("path,label\n,x\n", "line 2, column path: is empty"),
        ("path,label\na.txt,x\n", "line 2, column path: .*a.txt is not one of .gif, .mp4"),
        ("path,label,start\na.mp4,x,soon\n", "line 2, column start: 'soon'"),
        ("path,label,start\na.mp4,x,nan\n", "line 2, column start: 'nan'"),
        ("path,label,start\na.mp4,x,-1\n", "line 2, column start"),
        ("path,label,start,end\na.mp4,x,3,3\n", "line 2, column end: 3.0 is not after"),
        ("path,label,split\na.mp4,x,dev\n", "line 2, column split: 'dev'"),
        ('path,label\n"a.mp4,x\n', "cannot be read as CSV"),
        ("path,label\n../a.mp4,x\n", "line 2, column path: '../a.mp4' leaves the folder .* link their folder"),
        ("path,label\nno/../../a.mp4,x\n", "line 2, column path: .* leaves the folder"),
        ("path,label\n/etc/a.mp4,x\n", "line 2, column path: '/etc/a.mp4' leaves the folder"),
    ],
)
def test_mistakes_in_a_list(tmp_path, text, message):
    touch(tmp_path, "a.mp4", "a.txt")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        Manifest.scan([tmp_path], MP4)
    assert "labels.csv" in str(caught.value)


def test_mistakes_in_paths(tmp_path):
    touch(tmp_path, "a.txt", "b", "sub/c.png")
    with pytest.raises(UserError, match="no such file or folder"):
        Manifest.scan([tmp_path / "nowhere"], MP4)
    with pytest.raises(UserError, match=r"no file ends in .gif, .mp4 \(found: \(no suffix\), .png, .txt\)"):
        Manifest.scan([tmp_path], MP4)
    with pytest.raises(UserError, match="not one of"):
        Manifest.scan([tmp_path / "a.txt"], MP4)
    with pytest.raises(UserError, match="at least one"):
        Manifest.scan([], MP4)
    (tmp_path / "latin.csv").write_bytes(b"path,label\n\xe9.mp4,x\n")
    with pytest.raises(UserError, match="UTF-8"):
        Manifest.scan([tmp_path / "latin.csv"], MP4)


def test_links(tmp_path):
    touch(tmp_path, "data/a/1.mp4", "elsewhere/2.mp4")
    (tmp_path / "data/a/up").symlink_to(tmp_path / "data")  # a loop
    (tmp_path / "data/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/self").symlink_to(tmp_path / "data/self")
    (tmp_path / "data/gone.mp4").symlink_to(tmp_path / "gone.mp4")
    assert short(Manifest.scan([tmp_path / "data"], MP4), tmp_path / "data") == [
        ("a/1.mp4", "a", ""),
        ("b/2.mp4", "b", ""),
        ("gone.mp4", "", ""),
    ]


def test_whatever_is_named_like_a_file_is_listed(tmp_path):
    """What it really is shows when it is read: none of these may vanish without a word."""
    touch(tmp_path, "folder.mp4/notes.txt", "clips.mp4/1.mp4", "clips.mp4/inner.gif/x.txt")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "bytes\udcff.mp4").write_bytes(b"")
    names = [name for name, _, _ in short(Manifest.scan([tmp_path], MP4), tmp_path)]
    assert names == [
        "bytes\\xff.mp4",
        "clips.mp4/1.mp4",
        "clips.mp4/inner.gif",
        "folder.mp4",
        "loop.mp4",
        "pipe.mp4",
    ]
    (tmp_path / "labels.csv").write_text("path,label\npipe.mp4,a\nfolder.mp4,b\nloop.mp4,c\n")
    assert len(Manifest.scan([tmp_path], MP4)) == 3


def test_select_save_hash(tmp_path):
    touch(tmp_path, "data/train/a/1.mp4", "data/train/b/2.mp4", "data/val/a/3.mp4")
    manifest = Manifest.scan([tmp_path / "data"], MP4)
    assert len(manifest.select("train")) == 2
    assert manifest.select([True, False, True]).column("label") == ["a", "a"]
    assert manifest.select(np.array([2, 0])).column("label") == ["a", "a"]
    assert len(manifest.select([])) == 0
    with pytest.raises(ValueError):
        manifest.select([True])
    manifest.save(tmp_path / "m.parquet")
    loaded = Manifest.load(tmp_path / "m.parquet")
    assert list(loaded) == list(manifest)
    assert loaded.hash == manifest.hash == pickle.loads(pickle.dumps(manifest)).hash
    shutil.move(tmp_path / "data", tmp_path / "moved")
    assert Manifest.scan([tmp_path / "moved"], MP4).hash == manifest.hash
    assert manifest.select("train").hash != manifest.hash
    rows = list(manifest)
    assert Manifest.of([rows[0]._replace(label="c"), *rows[1:]]).hash != manifest.hash
    assert Manifest.of([rows[0]._replace(end=1.0), *rows[1:]]).hash != manifest.hash
    assert Manifest.of([]).hash


def test_further_columns_are_kept(tmp_path):
    table = Manifest.of([Row("/a.mp4"), Row("/b.mp4")]).table.append_column("fps", pa.array([25.0, 30.0]))
    Manifest(table).save(tmp_path / "m.parquet")
    assert Manifest.load(tmp_path / "m.parquet").select([False, True]).column("fps") == [30.0]
    with pytest.raises(ValueError):
        Manifest(table.drop_columns(["label"]))
    (tmp_path / "no.parquet").write_text("no")
    for name in ("no.parquet", "none.parquet"):
        with pytest.raises(UserError, match="not a manifest"):
            Manifest.load(tmp_path / name)


def test_listing_is_quick(tmp_path):
    for number in range(20):
        touch(tmp_path, *(f"{number}/{i}.mp4" for i in range(100)))
    began = time.perf_counter()
    assert len(Manifest.scan([tmp_path], MP4)) == 2000
    assert time.perf_counter() - began < 1.0  # 100,000 within a minute even on a slow, busy machine
