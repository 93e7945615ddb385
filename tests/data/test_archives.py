"""Archives are read in place; nothing in them leaves them, and what is damaged is named."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
import torch
from pairs import picture, write_shards, write_tar

from unveil.data import Image, Manifest, Row, archives, read_image
from unveil.errors import DecodeError, UserError

PNG = picture("red", 0)


def test_shards_become_rows_that_are_read_in_place(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", 6, 4)
    manifest = Manifest.scan([folder], Image.suffixes)
    assert len(manifest) == 6
    row = manifest.row(4)
    assert row.path == str(folder / "00004.tar" / "004.png")
    assert (row.caption, row.label) == ("a red square", "1")
    (tmp_path / "alone.png").write_bytes(picture("red", 4))
    assert torch.equal(read_image(row.path), read_image(tmp_path / "alone.png"))
    assert sorted(path.name for path in folder.iterdir()) == ["00000.tar", "00004.tar"]


def test_splits_come_from_the_folders_of_archives(tmp_path: Path) -> None:
    write_shards(tmp_path / "d" / "train", 4, 4)
    write_shards(tmp_path / "d" / "val", 4, 4)
    assert Manifest.scan([tmp_path / "d"], Image.suffixes).column("split") == ["train"] * 4 + ["val"] * 4
    write_shards(tmp_path / "d", 4, 4)
    with pytest.raises(UserError, match="beside others"):
        Manifest.scan([tmp_path / "d"], Image.suffixes)


def test_captions_of_records_and_samples_without_one(tmp_path: Path) -> None:
    members = [
        ("a/1.png", PNG), ("a/1.json", b'{"caption": "from a record"}'),
        ("a/2.png", PNG), ("a/2.json", b"{broken"),
        ("a/3.seg.png", PNG), ("a/4.png", PNG), ("a/4.txt", b"two\n lines"), ("a/5.png", PNG), ("a/5.txt", b"\xff\xfe"),
    ]  # fmt: skip
    rows = list(Manifest.scan([write_tar(tmp_path / "x.tar", members)], Image.suffixes))
    assert [(Path(row.path).name, row.caption) for row in rows] == [
        ("1.png", "from a record"), ("2.png", ""), ("4.png", "two lines"), ("5.png", "\ufffd\ufffd"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["../out.png", "/etc/out.png", "a/../../out.png"])
def test_a_name_that_leaves_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    path = write_tar(tmp_path / "x.tar", [(name, PNG)])
    with pytest.raises(UserError, match="leaves the archive"):
        Manifest.scan([path], Image.suffixes)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PNG)
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for kind, name in ((tarfile.SYMTYPE, "link.png"), (tarfile.LNKTYPE, "hard.png")):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, str(tmp_path / "secret.png")
            archive.addfile(entry)
        entry = tarfile.TarInfo("own.png")
        entry.size = len(PNG)
        archive.addfile(entry, io.BytesIO(PNG))
    assert list(archives.members(tmp_path / "x.tar")) == ["own.png"]


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", [("1.png", PNG), ("2.png", PNG)]).read_bytes()
    for name, content, said in (
        ("cut.tar", whole[: 512 + len(PNG) // 2], "cut off within 1.png"),
        ("other.tar", b"no archive at all" * 100, "cannot be read as a tar"),
        ("empty.tar", b"", "cannot be read as a tar"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: .*{said}"):
            Manifest.scan([tmp_path / name], Image.suffixes)
    with tarfile.open(tmp_path / "small.tar", "w:gz") as archive:
        archive.add(tmp_path / "whole.tar", "1.png")
    with pytest.raises(UserError, match="compressed"):
        Manifest.scan([tmp_path / "small.tar"], Image.suffixes)
    twice = write_tar(tmp_path / "twice.tar", [("1.png", PNG), ("1.png", PNG)])
    with pytest.raises(UserError, match=r"holds 1\.png twice"):
        Manifest.scan([twice], Image.suffixes)


def test_a_member_that_is_not_there(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [("1.png", PNG), ("empty.png", b"")])
    with pytest.raises(DecodeError, match="no such file in the archive"):
        Image().read(Row(f"{path}/2.png"))
    with pytest.raises(DecodeError, match="is empty"):
        Image().read(Row(f"{path}/empty.png"))


def test_a_folder_may_be_called_like_an_archive(tmp_path: Path) -> None:
    folder = tmp_path / "x.tar"
    folder.mkdir()
    (folder / "1.png").write_bytes(PNG)
    assert archives.divided(folder / "1.png") is None
    assert Image().read(Row(str(folder / "1.png"))).shape == (3, 24, 24)


def test_an_archive_that_changes_is_looked_at_again(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [("1.png", PNG)])
    assert list(archives.members(path)) == ["1.png"]
    write_tar(path, [("1.png", PNG), ("2.png", PNG)])
    assert list(archives.members(path)) == ["1.png", "2.png"]
