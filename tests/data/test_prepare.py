"""`unveil data prepare`: a folder encoded into another; stopped, killed, changed, in the way of itself."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from media import numbered_frames, write_video
from PIL import Image as Picture

from unveil import cli, verbs
from unveil.data import Manifest, VideoReader, prepare
from unveil.data.encode import Encoding
from unveil.data.progress import FileProgress
from unveil.errors import UserError


def on_a_full_disk(job):
    """`make`, where no file may grow beyond a kilobyte."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    return prepare.make(job)


def never_ending(job):
    """`make` that hangs on one file, and says so."""
    if job.source.endswith("3.mkv"):
        Path(job.target + ".pid").write_text(str(os.getpid()))
        time.sleep(1000)
    return prepare.make(job)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for i, name in enumerate(("a/1.mp4", "a/2.avi", "b/3.mkv", "b/4.mp4")):
        (folder / name).parent.mkdir(exist_ok=True)
        write_video(folder / name, numbered_frames(24, 90, 122, seed=i), gop=24, codec="mpeg4" if i == 1 else "libx264")
    Picture.new("RGB", (122, 90), (200, 30, 60)).save(folder / "b/5.bmp")
    return folder


@pytest.fixture
def folder(clips, tmp_path):
    return Path(shutil.copytree(clips, tmp_path / "data"))


MADE = ["a/1.mp4", "a/2.mp4", "b/3.mp4", "b/4.mp4", "b/5.png"]


def run(folder, out, **options):
    return verbs.prepare(folder, out=out, **{"short_side": 60, "quiet": True, "workers": 2, **options})


def media(out: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(out).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in (prepare.JOURNAL, prepare.LOCK, "manifest.parquet")
    }


def test_a_folder_is_prepared_and_its_sources_are_untouched(folder, tmp_path):
    before, out = media(folder), tmp_path / "out"
    prepared = run(folder, out)
    assert media(folder) == before
    assert list(media(out)) == MADE
    assert (prepared.made, prepared.unchanged, prepared.bad) == (5, 0, [])
    assert prepared.before == sum(len(content) for content, _ in before.values())
    assert prepared.after == sum(len(content) for content, _ in media(out).values())
    table = pq.read_table(out / "manifest.parquet").to_pydict()
    assert table["path"] == MADE
    assert table["label"] == ["a", "a", "b", "b", "b"]
    assert table["frames"] == [24] * 4 + [None]
    assert set(zip(table["width"], table["height"], strict=True)) == {
        (80, 60),
        (81, 60),
    }  # a picture's sides may be odd
    with VideoReader(out / "a/2.mp4") as video:
        keys = [number for number, (_, frame) in enumerate(video.decode()) if frame.key_frame]
    assert max(b - a for a, b in zip(keys, [*keys[1:], 24], strict=True)) <= 32
    Manifest.scan([out], {".mp4"}, warn=pytest.fail)
    assert verbs.check(out, quiet=True, workers=1).unchanged == 5  # measured already


def test_a_second_run_does_what_changed(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(folder, out)
    before = media(out)
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "each", lambda function, items, workers, limit: iter(items))  # fails with any item
        assert run(folder, out).unchanged == 5
    assert media(out) == before
    write_video(folder / "b/3.mkv", numbered_frames(10, 90, 122))
    (out / "a/1.mp4").write_bytes(b"tampered with")
    write_video(folder / "new.mov", numbered_frames(5, 90, 122))
    assert (run(folder, out).made, len(media(out))) == (3, 6)
    assert media(out)["a/2.mp4"] == before["a/2.mp4"]
    assert media(out)["a/1.mp4"][0] == before["a/1.mp4"][0]
    assert run(folder, out, crf=40).made == 6


def test_names_that_collide(folder, tmp_path):
    shutil.copy(folder / "a/1.mp4", folder / "a/1.MOV")
    run(folder, tmp_path / "out")
    assert list(media(tmp_path / "out"))[:3] == ["a/1.MOV.mp4", "a/1.mp4.mp4", "a/2.mp4"]


def test_bad_files(folder, tmp_path, capsys):
    (folder / "a/bad.mp4").write_text("no video")
    (folder / "b/gone.mp4").symlink_to("nowhere")
    os.mkfifo(folder / "b/pipe.avi")
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as status:
        cli.run(["data", "prepare", str(folder), "--out", str(out), "--short-side", "60", "--workers", "2"])
    assert status.value.code == 1
    table = pq.read_table(out / "manifest.parquet")
    errors = dict(zip(table["path"].to_pylist(), table["error"].to_pylist(), strict=True))
    errors = {path: error for path, error in errors.items() if error}
    assert errors.keys() == {"a/bad.mp4", "b/gone.mp4", "b/pipe.mp4"}
    assert "leads nowhere" in errors["b/gone.mp4"]
    assert errors["b/gone.mp4"].endswith(f"Its source: {folder / 'b/gone.mp4'}")
    assert list(media(out)) == MADE
    printed = capsys.readouterr().out
    assert "5 files prepared" in printed
    assert f"{out}/a/bad.mp4: " in printed
    verbs.check(folder, quiet=True)
    write_video(folder / "a/bad.mp4", numbered_frames(4, 90, 122))
    # What the check found bad is not opened again, until it is checked again.
    assert len(run(folder, out).bad) == 3
    verbs.check(folder, quiet=True)
    assert len(run(folder, out).bad) == 2


def test_labels_follow_their_files(folder, tmp_path):
    (folder / "a/bad.mp4").write_text("no video")
    (folder / "labels.csv").write_text(
        "path,label,start,end,split\na/2.avi,x;y,0.25,0.5,train\na/2.avi,y,0.5,,val\na/bad.mp4,x,,,\nb/4.mp4,,,,test\n"
    )
    out = tmp_path / "out"
    assert run(folder, out).made == 2
    (out / "manifest.parquet").unlink()
    rows = [row._replace(path=os.path.relpath(row.path, out)) for row in Manifest.scan([out], {".mp4"})]
    assert [tuple(row) for row in rows] == [
        ("a/2.mp4", "x;y", 0.25, 0.5, "train", "", ""),
        ("a/2.mp4", "y", 0.5, None, "val", "", ""),
        ("b/4.mp4", "", None, None, "test", "", ""),
    ]


def test_a_run_that_is_stopped_goes_on(folder, tmp_path, monkeypatch):
    out, done = tmp_path / "out", []
    advance = FileProgress.advance

    def stop(self, *values):
        advance(self, *values)
        done.append(values)
        if len(done) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    with monkeypatch.context() as patch:
        patch.setattr(FileProgress, "advance", stop)
        with pytest.raises(SystemExit):
            run(folder, out, workers=1)
    assert not (out / "manifest.parquet").exists()
    with (out / prepare.JOURNAL).open("a") as file:
        file.write('{"source": "a/1.m')  # as a kill leaves it
    assert (run(folder, out).made, list(media(out))) == (3, MADE)
    assert run(folder, out).unchanged == 5


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on(folder, tmp_path):
    source, out = Path(__file__).parents[2] / "src", tmp_path / "out"
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]; import test_prepare as t, unveil.data.prepare as p;"
        "p.make = t.never_ending; p.prepare(sys.argv[3], sys.argv[4], t.Encoding(60), workers=1)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(source), str(Path(__file__).parent), str(folder), str(out)]
    )
    pid, limit = out / "b/3.mp4.pid", time.monotonic() + 60
    while not (pid.exists() and pid.read_text()) and time.monotonic() < limit:
        time.sleep(0.05)
    child.kill()
    child.wait()
    worker = int(pid.read_text())
    pid.unlink()
    while Path(f"/proc/{worker}").exists() and time.monotonic() < limit:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()
    (out / "b/.3.mp4.123.tmp").write_bytes(b"half a file")  # as a worker leaves it that is killed while it writes
    unchanged = len(media(out)) - 1
    prepared = run(folder, out)
    assert (prepared.unchanged, prepared.made) == (unchanged, 5 - unchanged)
    assert list(media(out)) == MADE


def test_a_full_disk_ends_it_with_a_sentence(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "make", on_a_full_disk)
        with pytest.raises(UserError, match=r"cannot be written \(File too large\).*goes on"):
            run(folder, out, workers=1)
    small = len(media(out))
    assert set(media(out)) <= {"b/5.png"}  # of less than a kilobyte
    prepared = run(folder, out)
    assert (prepared.made, prepared.unchanged, prepared.bad) == (5 - small, small, [])


def test_folders_in_each_others_way(folder, tmp_path):
    for out in (folder, folder / "out", tmp_path, folder / "../data"):
        with pytest.raises(UserError, match="lie in one another"):
            run(folder, out)
    (tmp_path / "link").symlink_to(folder)
    for one, other in ((tmp_path / "link", folder), (folder, tmp_path / "link/new")):
        with pytest.raises(UserError, match="lie in one another"):
            run(one, other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("")
    with pytest.raises(UserError, match="holds other files"):
        run(folder, tmp_path / "full")
    out = tmp_path / "out"
    run(folder, out)
    before = media(folder)
    shutil.rmtree(out / "a")
    (out / "a").symlink_to(folder / "a")  # would be written through
    with pytest.raises(UserError, match="is a link that leads out"):
        run(folder, out, crf=30)
    assert media(folder) == before
    (out / "a").unlink()
    (folder / "c").symlink_to(out / "b")
    with pytest.raises(UserError, match="is a link into --out"):
        run(folder, out, crf=30)
    (folder / "c").unlink()
    with FileLock(out / prepare.LOCK), pytest.raises(UserError, match="another `unveil data prepare` is at work"):
        run(folder, out)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"short_side": 0}, "--short-side 0"),
        ({"gop": 0}, "--gop 0"),
        ({"crf": 60}, "--crf 60"),
        ({"fps": -1.0}, "--fps"),
    ],
)
def test_numbers_out_of_range(folder, tmp_path, flags, words):
    with pytest.raises(UserError, match=words):
        run(folder, tmp_path / "out", **flags)
    with pytest.raises(UserError, match="no such folder"):
        run(folder / "nowhere", tmp_path / "out")


def test_encoding_sizes():
    assert Encoding(320).scaled(1920, 1080) == (569, 320)
    assert Encoding(320).scaled(240, 4000) == (240, 4000)
