"""The moving digits: a function of their parameters alone, balanced, with no scan in two splits."""

import csv
import json
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from unveil.data import builtin
from unveil.data.builtin import BUILTIN, MOTIONS, STATE_FILE, moving_digits, render
from unveil.errors import UserError

SMALL = {"unlabelled": 6, "labelled": 16, "test": 8, "frames": 4, "size": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("digits") / "new"
    assert moving_digits(out, workers=2, **SMALL) == 30
    return out


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def square() -> np.ndarray:
    scan = np.zeros((8, 8))
    scan[2:6, 2:6] = 1
    return scan


def test_layout_and_format(folder):
    assert len(list((folder / "unlabelled").glob("*.mp4"))) == 6
    for split, each in (("labelled", 2), ("test", 1)):
        assert sorted(path.name for path in (folder / split).iterdir()) == sorted(MOTIONS)
        assert all(len(list(path.glob("*.mp4"))) == each for path in (folder / split).iterdir())
    with av.open(str(folder / "unlabelled" / "00000.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert (stream.height, stream.width, stream.average_rate) == (16, 16, 8)
        assert len(list(container.decode(stream))) == 4
    data = (folder / "unlabelled" / "00000.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # fast start
    assert not list(folder.rglob("*.part"))


def test_digit_labels_name_every_labelled_file(folder):
    with (folder / "digits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    paths = {(folder / row["path"]).resolve() for row in rows}
    assert paths == {path.resolve() for split in ("labelled", "test") for path in (folder / split).rglob("*.mp4")}
    assert Counter(row["split"] for row in rows) == {"train": 16, "test": 8}
    _, digits = builtin._scans()
    assert all(digits[int(row["group"])] == int(row["label"]) for row in rows)


def test_the_same_whatever_the_workers_and_another_with_another_seed(folder, tmp_path):
    moving_digits(tmp_path / "one", workers=1, **SMALL)
    assert contents(tmp_path / "one") == contents(folder)
    moving_digits(tmp_path / "other", seed=1, **SMALL)
    first = "unlabelled/00000.mp4"
    assert (tmp_path / "other" / first).read_bytes() != (folder / first).read_bytes()


def test_the_same_pixels_give_the_same_bytes(tmp_path):
    """Threads that race in the conversion of colours or in the encoder show in some dozens of tries, not in two."""
    pixels = render(builtin._scans()[0][2], "left", np.random.default_rng(2))
    written = set()
    for _ in range(100):
        builtin.write_h264(tmp_path / "a.mp4", pixels)
        written.add((tmp_path / "a.mp4").read_bytes())
    assert len(written) == 1


def test_a_clip_does_not_depend_on_the_size_of_other_splits(folder, tmp_path):
    moving_digits(tmp_path / "fewer", **{**SMALL, "unlabelled": 0, "test": 0})
    assert contents(tmp_path / "fewer" / "labelled") == contents(folder / "labelled")
    assert not (tmp_path / "fewer" / "test").exists()


def test_splits_share_no_scan_and_are_balanced():
    parameters = builtin.Parameters(unlabelled=2000, labelled=160, test=400, frames=16, size=32, seed=0)
    _, digits = builtin._scans()
    clips = {split: list(builtin._plan(split, parameters, digits)) for split in builtin.SPLITS}
    scans = {split: {clip.scan for clip in clips[split]} for split in clips}
    assert not scans["unlabelled"] & scans["labelled"]
    assert not scans["unlabelled"] & scans["test"]
    assert not scans["labelled"] & scans["test"]
    for split, each in (("unlabelled", 25), ("labelled", 2), ("test", 5)):
        assert Counter((clip.motion, clip.digit) for clip in clips[split]) == {
            (motion, digit): each for motion in MOTIONS for digit in range(10)
        }
        assert all(digits[clip.scan] == clip.digit for clip in clips[split])
    assert len(scans["labelled"]) == 160


def test_few_clips_still_meet_every_digit_and_every_motion():
    parameters = builtin.Parameters(unlabelled=0, labelled=40, test=0, frames=16, size=32, seed=0)
    clips = list(builtin._plan("labelled", parameters, builtin._scans()[1]))
    assert set(Counter(clip.motion for clip in clips).values()) == {5}
    assert set(Counter(clip.digit for clip in clips)) == set(range(10))
    assert len({(clip.motion, clip.digit) for clip in clips}) == len({clip.scan for clip in clips}) == 40


def test_complete_folder_is_left_alone(folder, capsys):
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp4")}
    assert moving_digits(folder, **SMALL) == 0
    assert "complete, nothing to do" in " ".join(capsys.readouterr().err.split())
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp4")}


def test_interrupted_writing_resumes(folder, tmp_path, monkeypatch):
    made = []

    def interrupted(path, pixels):
        if len(made) == 5:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        made.append(path)
        builtin_write(path, pixels)

    builtin_write = builtin.write_h264
    monkeypatch.setattr(builtin, "write_h264", interrupted)
    with pytest.raises(KeyboardInterrupt):
        moving_digits(tmp_path / "a", workers=1, **SMALL)
    monkeypatch.undo()
    assert "sha256" not in json.loads((tmp_path / "a" / STATE_FILE).read_text())
    assert moving_digits(tmp_path / "a", workers=1, **SMALL) == 25
    assert {k: v for k, v in contents(tmp_path / "a").items() if not k.endswith(".part")} == contents(folder)


def test_a_lost_file_comes_back_and_a_changed_one_is_told(tmp_path):
    small = {**SMALL, "labelled": 0, "test": 0}
    moving_digits(tmp_path / "a", **small)
    file = tmp_path / "a" / "unlabelled" / "00003.mp4"
    before = file.read_bytes()
    file.unlink()
    assert moving_digits(tmp_path / "a", **small) == 1
    assert file.read_bytes() == before
    file.write_bytes(before[:-1])
    with pytest.raises(UserError, match="have changed"):
        moving_digits(tmp_path / "a", **small)


def test_other_parameters_are_named(folder):
    with pytest.raises(UserError, match="frames is 4, asked for 8"):
        moving_digits(folder, **{**SMALL, "frames": 8})


def test_folders_of_others_are_not_touched(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="is not empty"):
        moving_digits(tmp_path, **SMALL)
    with pytest.raises(UserError, match="is a file"):
        moving_digits(tmp_path / "mine.txt", **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 1}'])
def test_unreadable_state_is_told(tmp_path, text):
    (tmp_path / STATE_FILE).write_text(text)
    with pytest.raises(UserError, match="not readable"):
        moving_digits(tmp_path, **SMALL)


@pytest.mark.parametrize(("flag", "value"), [("frames", 1), ("size", 33), ("size", 8), ("labelled", -1), ("seed", -1)])
def test_impossible_parameters_name_the_flag(tmp_path, flag, value):
    with pytest.raises(UserError, match=f"--{flag} {value}"):
        moving_digits(tmp_path / "a", **{**SMALL, flag: value})
    assert not (tmp_path / "a").exists()


def test_motion_is_what_its_name_says():
    """Follow the digit's centre on the circle of space (and its area), without noise to hide it."""
    for motion in MOTIONS:
        for seed in range(5):
            y, x, side = builtin._trajectory(motion, np.random.default_rng(seed), 16)
            dy, dx, grow = np.diff(y), np.diff(x), np.mod(np.diff(np.log(side)) + 0.3, np.log(2)) - 0.3
            turn = dx[:-1] * dy[1:] - dy[:-1] * dx[1:]
            expected = {
                "left": (dx < 0).all() and (dy == 0).all(),
                "right": (dx > 0).all() and (dy == 0).all(),
                "up": (dy < 0).all() and (dx == 0).all(),
                "down": (dy > 0).all() and (dx == 0).all(),
                "clockwise": (turn > 0).all(),  # rows count downwards
                "counterclockwise": (turn < 0).all(),
                "growing": (grow > 0).all(),
                "shrinking": (grow < 0).all(),
            }
            assert expected[motion], (motion, seed)


def test_state_at_an_instant_is_the_same_for_every_motion():
    """Place and size at a given frame have one distribution, uniform on their circles, for all eight motions."""
    for motion in MOTIONS:
        states = [builtin._trajectory(motion, np.random.default_rng(seed), 8) for seed in range(400)]
        y, x, side = (np.array(values) for values in zip(*states, strict=True))
        low, high = builtin.SIZES
        for circle in (np.mod(y, 1), np.mod(x, 1), np.log(side / low) / np.log(high / low)):
            for frame in (0, 3, 7):
                spread = np.abs(np.sort(circle[:, frame]) - np.linspace(0, 1, 400)).max()
                assert spread < 0.11  # Kolmogorov's bound for 400 draws, at 1 in 10,000: there are 72 of them


def test_render_draws_the_digit_where_it_is():
    pixels = render(square(), "right", np.random.default_rng(0), frames=3, size=64)
    assert pixels.shape == (3, 64, 64, 3)
    assert pixels.dtype == np.uint8
    with pytest.raises(ValueError, match="sideways"):
        render(square(), "sideways", np.random.default_rng(0))


def test_registry():
    assert BUILTIN["moving-digits"] is moving_digits
