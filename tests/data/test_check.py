"""`unveil data check`: what is measured, what goes wrong, what is kept."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from media import numbered_frames, write_video
from PIL import Image as Picture

from unveil import cli, verbs
from unveil.data import Manifest, check, manifest_file, order
from unveil.data.progress import FileProgress
from unveil.errors import UserError

GOOD = 5


def strange(path: str):
    """`measure`, with files that do to their process what their name says."""
    name = os.path.basename(path)
    if name.startswith("hang"):
        Path(path + ".pid").write_text(str(os.getpid()))
        time.sleep(1000)
    if name.startswith("crash"):
        ctypes.string_at(0)
    if name.startswith("swallow"):
        os.kill(os.getpid(), signal.SIGKILL)  # what the kernel does when memory runs out
    return check.measure(path)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two classes, five different clips, sizes and lengths."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(GOOD):
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        write_video(folder / "ab"[i % 2] / f"{i}.mp4", numbered_frames(8 + i, seed=i), fps=8)
    return folder


@pytest.fixture
def folder(clips, tmp_path):
    return Path(shutil.copytree(clips, tmp_path / "data"))


def column(file: Path, name: str) -> dict[str, object]:
    table = pq.read_table(file)
    return dict(zip(table["path"].to_pylist(), table[name].to_pylist(), strict=True))


def quietly(*folders, **options):
    return verbs.check(*folders, quiet=True, workers=2, **options)


def test_what_is_measured(folder):
    Picture.new("RGB", (30, 20)).save(folder / "b/still.png")
    checked = quietly(folder)
    assert checked.bad == []
    row = Manifest.load(folder / "manifest.parquet").table.to_pylist()[0]
    content = row.pop("hash")
    assert row.pop("name_digest") == order.digests(["a/0.mp4"], 0)[0]
    assert row == {
        "path": "a/0.mp4", "label": "a", "start": None, "end": None, "split": "", "group": "", "caption": "",
        "duration": 1.0, "fps": 8.0, "width": 64, "height": 48, "frames": 8, "has_audio": False, "points": None,
        "rate": None, "channels": None, "peak": None,
        "size": (folder / "a/0.mp4").stat().st_size, "mtime_ns": (folder / "a/0.mp4").stat().st_mtime_ns, "error": None,
    }  # fmt: skip
    assert len(content) == 32
    assert checked.duration == pytest.approx(sum(range(8, 8 + GOOD)) / 8)
    still = Manifest.load(folder / "manifest.parquet").table.to_pylist()[-1]
    assert (still["width"], still["height"], still["frames"], still["duration"]) == (30, 20, None, None)
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "manifest.parquet"]  # no trace of the work


def test_whatever_a_file_does_the_check_goes_on(folder, monkeypatch, capsys):
    monkeypatch.setattr(check, "measure", strange)
    whole = (folder / "a/0.mp4").read_bytes()
    for name in ("crash.mp4", "hang.mp4", "swallow.mp4"):
        (folder / "a" / name).write_bytes(whole)
    (folder / "a/text.mp4").write_text("no video")
    (folder / "a/empty.mp4").write_bytes(b"")
    (folder / "a/cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "a/picture.png").write_bytes(b"\x89PNG\r\n")
    (folder / "b/folder.mp4").mkdir()
    os.mkfifo(folder / "b/pipe.mp4")
    (folder / "b/gone.mp4").symlink_to("nowhere.mp4")
    (folder / "b/bytes\udcff.mp4").write_bytes(whole)
    with pytest.raises(SystemExit) as status:
        cli.run(["data", "check", str(folder), "--timeout", "2", "--workers", "2"])
    assert status.value.code == 1
    errors = {path: error for path, error in column(folder / "manifest.parquet", "error").items() if error}
    expected = {
        "a/crash.mp4": "SIGSEGV", "a/hang.mp4": "no end after 2 s", "a/swallow.mp4": "SIGKILL",
        "a/text.mp4": "Invalid data", "a/empty.mp4": "is empty", "a/cut.mp4": "Invalid data", "a/picture.png": "",
        "b/folder.mp4": "a folder", "b/pipe.mp4": "named pipe", "b/gone.mp4": "link that leads nowhere",
        "b/bytes\\xff.mp4": "No such file",
    }  # fmt: skip
    assert errors.keys() == expected.keys()
    for path, words in expected.items():
        assert words in errors[path], path
        assert str(folder) not in errors[path]  # the manifest may be moved
    printed = capsys.readouterr().out
    assert "5 of 16 files are good" in printed
    for path in expected:
        assert f"{folder}/{path}: " in printed
    assert column(folder / "manifest.parquet", "hash")["a/text.mp4"] is not None
    pid = int((folder / "a/hang.mp4.pid").read_text())
    limit = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < limit:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(folder):
    (folder / "a/0.mp4").chmod(0)
    assert [error for _, error in quietly(folder).bad] == [f"{folder}/a/0.mp4: Permission denied"]


def test_unchanged_files_are_not_decoded_again(folder, monkeypatch):
    (folder / "a/bad.mp4").write_text("no video")
    assert quietly(folder).unchanged == 0
    assert quietly(folder).unchanged == GOOD  # the bad one is tried again
    write_video(folder / "b/1.mp4", numbered_frames(12))
    write_video(folder / "a/bad.mp4", numbered_frames(12, seed=9))
    checked = quietly(folder)
    assert (checked.unchanged, checked.bad) == (GOOD - 1, [])
    assert column(folder / "manifest.parquet", "frames")["b/1.mp4"] == 12
    assert quietly(folder, recheck=True).unchanged == 0
    monkeypatch.setattr(check, "each", lambda function, items, workers, limit: iter(items))  # fails with any item
    assert quietly(folder).unchanged == GOOD + 1


@pytest.mark.parametrize("how", ["ctrl-c", "sigterm"])
def test_a_check_that_is_stopped_goes_on(folder, monkeypatch, capsys, how):
    done, most = [], [3]
    advance = FileProgress.advance

    def stop(self, *values):
        advance(self, *values)
        done.append(values)
        if len(done) == most[0]:
            if how == "ctrl-c":
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    monkeypatch.setattr(FileProgress, "advance", stop)
    with pytest.raises(KeyboardInterrupt if how == "ctrl-c" else SystemExit):
        verbs.check(folder, workers=1)
    assert "the same command goes on" in capsys.readouterr().err
    assert not (folder / "manifest.parquet").exists()
    with (folder / ".manifest.parquet.partial").open("a") as file:
        file.write('{"path": "a/0.m')  # as a kill leaves it
    done.clear()
    most[0] = 1
    with pytest.raises(KeyboardInterrupt if how == "ctrl-c" else SystemExit):
        verbs.check(folder, workers=1, quiet=True)  # ends at the fourth, the first of this check
    monkeypatch.undo()
    assert quietly(folder).unchanged == 4
    assert not list(folder.glob(".*"))


@pytest.mark.slow
def test_a_check_that_is_killed_goes_on_and_leaves_no_process(folder):
    source = Path(__file__).parents[2] / "src"
    code = (
        "import sys; sys.path[:0] = [sys.argv[1], sys.argv[2]]; import test_check as t, unveil.data.check as c;"
        "c.measure = t.strange; c.check([sys.argv[3]], workers=1)"
    )
    shutil.copy(folder / "a/0.mp4", folder / "b/hang.mp4")
    os.truncate(folder / "b/hang.mp4", 10)  # the shortest comes last
    child = subprocess.Popen([sys.executable, "-c", code, str(source), str(Path(__file__).parent), str(folder)])
    pid = folder / "b/hang.mp4.pid"
    limit = time.monotonic() + 60
    while not (pid.exists() and pid.read_text()) and time.monotonic() < limit:
        time.sleep(0.05)
    child.kill()
    child.wait()
    worker = int(pid.read_text())
    while Path(f"/proc/{worker}").exists() and time.monotonic() < limit:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()
    (folder / "b/hang.mp4").unlink()
    assert quietly(folder).unchanged == GOOD


def test_copies_empty_classes_and_missing_ones(folder, capsys):
    for split in ("train", "test"):
        shutil.copytree(folder / "b", folder / split / "b")
    shutil.move(folder / "a", folder / "train/a")
    shutil.rmtree(folder / "b")
    shutil.copy(folder / "train/a/0.mp4", folder / "train/b/0.mp4")
    (folder / "train/c").mkdir()
    (folder / "train/c/bad.mp4").write_text("no video")
    (folder / "train/d").mkdir()
    checked = verbs.check(folder, workers=2)
    leaks = [found.paths for found in checked.duplicates if found.leaks]
    assert leaks == [[f"{folder}/{split}/b/{i}.mp4" for split in ("test", "train")] for i in (1, 3)]
    assert [found.labels for found in checked.duplicates if found.contradicts] == [["a", "b"]]
    printed = capsys.readouterr().out
    assert "WARNING: the same content in several splits" in printed
    assert "WARNING: the same content with different labels: 1" in printed
    assert "WARNING: no readable file of the class c\n" in printed
    assert "split test lacks the class a\n" in printed
    assert f"no media file in {folder}/train/d\n" in printed


def test_segments_of_one_file_are_no_copies(folder):
    (folder / "labels.csv").write_text(
        "path,label,start,end,split\na/0.mp4,x,0,0.5,train\na/0.mp4,y,0.5,1,val\nb/1.mp4,y,,,train\n"
    )
    checked = quietly(folder)
    assert checked.count == 2
    assert checked.duplicates == []
    assert checked.duration == pytest.approx(1.0 + 9 / 8)


def test_one_manifest_of_several_folders(folder):
    checked = quietly(folder / "a", folder / "b", out=folder / "both.parquet")
    assert checked.files == [str(folder / "both.parquet")]
    assert list(column(folder / "both.parquet", "label")) == [
        f"{name}/{i}.mp4" for name in "ab" for i in range(name == "b", 5, 2)
    ]
    assert len(Manifest.scan([folder / "both.parquet"], {".mp4"})) == GOOD
    two = quietly(folder / "a", folder / "b")
    assert two.files == [str(folder / name / "manifest.parquet") for name in "ab"]
    assert two.manifest.hash.split("-")[1] == checked.manifest.hash.split("-")[1]


def test_mistakes(folder, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        quietly(folder / "a/0.mp4")
    with pytest.raises(UserError, match="needs a folder"):
        quietly()
    with pytest.raises(UserError, match="is not below its folder"):
        quietly(folder, out=folder / "a/x.parquet")
    with pytest.raises(UserError, match=r"is a \.parquet file"):
        quietly(folder, out=tmp_path / "x.csv")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no file ends in"):
        quietly(tmp_path / "none")
    pq.write_table(Manifest.scan([folder], {".mp4"}).table, folder / "manifest.parquet")
    with pytest.raises(UserError, match="would replace it"):
        quietly(folder)
    (folder / "manifest.parquet").write_text("no parquet")
    with pytest.raises(UserError, match="not a manifest"):
        quietly(folder)


def test_time_limits_follow_size(folder, monkeypatch):
    limits = {}

    def each(function, items, workers, limit):
        limits.update({os.path.basename(item): limit(item) for item in items})
        return iter(())

    monkeypatch.setattr(check, "each", each)
    with (folder / "a/0.mp4").open("ab") as file:
        file.truncate(50_000_000)
    quietly(folder)
    assert limits["0.mp4"] == 60 + 500
    assert 60 < limits["1.mp4"] < 61


def test_lines_without_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("unveil.data.progress.LINE_SECONDS", 0)
    with FileProgress(3, 300, "decoded") as progress:
        for bad in (False, True, False):
            time.sleep(0.01)
            progress.advance(100, bad)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"decoded {i} of 3 files" for i in (1, 2, 3)]
    assert "1 bad, about 0 s left" in lines[1]
    assert "left" not in lines[2]


def test_what_is_written_is_a_sound_parquet(folder):
    quietly(folder)
    table = pq.read_table(folder / "manifest.parquet")
    assert table.schema.names == [*manifest_file.SCHEMA.names, *manifest_file.MEASURED.names, "name_digest"]
    assert np.all([isinstance(size, int) for size in table["size"].to_pylist()])
