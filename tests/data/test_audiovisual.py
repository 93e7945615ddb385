"""Picture and sound of a clip, cut at the same moments of its file: flashes and beeps coincide, whatever starts late or is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from media import numbered_frames, write_video
from sounds import tone, write_clip, write_sound
from torch import Tensor
from torchvision.transforms import v2

from unveil.data import Audiovisual, Dataset, Dense, Image, Manifest, Row, Sound, Uniform, Video, complete
from unveil.data.audiovisual import about, stretch
from unveil.data.loader import collate, mix
from unveil.data.streams import filling, narrowed, prepared, streams_in
from unveil.errors import DecodeError, UserError
from unveil.recipe import Data

RATE, FPS = 16000, 25
TIMES = [0.48, 1.0, 1.72, 2.6, 3.2]


def signal(frames: int = 25, stride: int = 1, seconds: float = 1.0, missing: Any = "drop") -> Audiovisual:
    return Audiovisual(Video(Dense(frames, stride)), Sound(seconds, RATE), missing)


def flashes(x: Tensor) -> list[float]:
    """Moments of white frames [T,C,H,W], in seconds from the first."""
    lit = x.float().mean((1, 2, 3)) > 128
    return [number / FPS for number in lit.nonzero()[:, 0].tolist()]


def beeps(x: Tensor) -> list[float]:
    """Moments at which beeps begin [1,L], in seconds from the first sample."""
    loud = x[0].abs() > 0.2
    places = loud.nonzero()[:, 0].tolist()
    return [place / RATE for i, place in enumerate(places) if not i or place - places[i - 1] > RATE // 10]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", TIMES, TIMES)


def coincide(sample: dict[str, Tensor], at_least: int = 1) -> None:
    seen, heard = flashes(sample["video"]), beeps(sample["audio"])
    assert len(seen) >= at_least
    # One at an edge may be seen and not heard, or the other way round.
    near = [min(abs(flash - beep) for beep in heard) for flash in seen if 0.06 < flash < 0.9]
    assert max(near, default=0) < 1.5 / FPS


@pytest.mark.parametrize("seed", range(6))
def test_flashes_and_beeps_coincide_wherever_a_clip_lies(clip: Path, seed: int) -> None:
    sample = signal().read(Row(str(clip)), torch.Generator().manual_seed(seed))
    assert sample["video"].shape == (25, 3, 32, 32)
    assert sample["audio"].shape == (1, RATE)
    assert sample["audio"].dtype == torch.float32
    coincide(sample)


def test_in_views_moments_and_windows_as_well(clip: Path) -> None:
    for sample in signal().views(Row(str(clip)), 4):
        coincide(sample)
    for sample in signal().moments(Row(str(clip)), 3, torch.Generator().manual_seed(1)):
        coincide(sample)
    windows = list(signal().windows(clip))
    assert [round(start or 0, 2) for start, _, _ in windows] == [0, 1, 2, 3]
    found = 0
    for start, _, sample in windows:
        coincide(sample, 0)
        found += sum(min(abs((start or 0) + beep - time) for time in TIMES) < 0.03 for beep in beeps(sample["audio"]))
    assert found == len(TIMES)


@pytest.mark.parametrize(("sound", "picture"), [((1.5, 4.0), 0.0), ((0.0, 1.5), 0.0), ((0.0, 4.0), 0.4)])
def test_a_track_that_starts_late_or_ends_early(tmp_path: Path, sound: tuple[float, float], picture: float) -> None:
    """Where there is no sound there is silence; what there is stays with its picture."""
    heard = [time for time in TIMES if sound[0] <= time < sound[1] - 0.1]
    seen = [time for time in TIMES if time >= picture]
    clip = write_clip(tmp_path / "clip.mkv", seen, heard, sound=sound, picture=picture, codec="libmp3lame")
    whole = {}
    for start, _, sample in signal().windows(clip):
        for name, found in (("seen", flashes(sample["video"])), ("heard", beeps(sample["audio"]))):
            whole.setdefault(name, []).extend((start or 0.0) + moment for moment in found)
    # Seconds are counted from the first picture.
    assert whole["seen"] == pytest.approx([time - picture for time in seen], abs=1 / FPS)
    wanted = [time - picture for time in heard if time >= picture]
    assert whole["heard"] == pytest.approx(wanted, abs=0.04)


def test_the_sound_lies_about_the_middle_of_its_clip(clip: Path) -> None:
    """Five frames in a second of sound: what is shown in the middle is heard in the middle."""
    row = Row(str(clip), start=0.5, end=1.5)
    (sample,) = signal(frames=5).views(row)
    assert flashes(sample["video"]) == pytest.approx([2 / FPS])  # at 1.0 s, the third of five
    assert beeps(sample["audio"])[-1:] == pytest.approx([0.5], abs=0.03)  # before it the end of the beep at 0.48 s


def test_a_segment_is_neither_seen_nor_heard_beyond(clip: Path) -> None:
    (sample,) = signal(frames=50).views(Row(str(clip), start=1.2, end=1.5))
    assert not flashes(sample["video"])
    assert not sample["audio"].any()
    with pytest.raises(DecodeError, match="starts at 9 s"):
        signal().views(Row(str(clip), start=9.0))


def test_a_clip_that_is_shorter_than_its_sound(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "short.mp4", [0.2], [0.2], seconds=0.5)
    sample = signal().read(Row(str(path)), torch.Generator().manual_seed(0))
    assert sample["video"].shape[0] == 25
    assert sample["audio"].shape == (1, RATE)
    assert beeps(sample["audio"]) == pytest.approx([0.2], abs=0.03)
    assert not sample["audio"][0, round(0.6 * RATE) :].any()


@given(
    first=st.floats(0, 5),
    lasts=st.floats(0.01, 5),
    rest=st.floats(0, 5),
    before=st.floats(0, 5),
    length=st.floats(0.01, 10),
)
def test_a_sound_lies_where_it_can(first: float, lasts: float, rest: float, before: float, length: float) -> None:
    """Inside the file where it fits, over the whole clip where it is long enough, and with it exactly where it is as long."""
    clip, start, end = (before + first, before + first + lasts), before, before + first + lasts + rest
    begun = about(clip, start, end, length)
    assert begun >= start - 1e-9
    if length <= end - start:
        assert begun + length <= end + 1e-9
    if length >= lasts:
        assert begun <= clip[0] + 1e-9
        assert begun + length >= clip[1] - 1e-9
    if start <= (clip[0] + clip[1] - length) / 2 <= end - length:
        assert begun == pytest.approx((clip[0] + clip[1] - length) / 2)
    assert about(clip, start, clip[0] + lasts / 2, lasts) == pytest.approx(clip[0])  # its file ends before it does


@given(first=st.integers(0, 500), frames=st.integers(2, 64), stride=st.integers(1, 16), fps=st.floats(5, 120))
def test_a_dense_clip_lasts_as_long_as_its_frames(first: int, frames: int, stride: int, fps: float) -> None:
    times = [(first + place * stride + 0.5) / fps for place in range(frames)]
    assert stretch(times, fps) == pytest.approx((first / fps, (first + frames * stride) / fps))


# ---- clips without sound


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    write_clip(folder / "a.mp4", [0.5], [0.5], seconds=1.2)
    write_video(folder / "b.mp4", numbered_frames(20))
    write_clip(folder / "silent.mp4", [0.5], [], seconds=1.2)
    (folder / "broken.mp4").write_bytes(b"no video at all")
    return folder


def scanned(folder: Path) -> Manifest:
    return Manifest.scan([folder], signal().suffixes)


def test_clips_without_sound_are_left_out_and_it_is_said(folder: Path) -> None:
    """A silent track is a track; a file that cannot be opened is somebody else's to report."""
    said: list[str] = []
    kept, count = complete(scanned(folder), signal(), said.append)
    assert [Path(path).name for path in kept.column("path")] == ["a.mp4", "broken.mp4", "silent.mp4"]
    assert count == 1
    keeps = "(`--missing blank` keeps such files, with silence)"
    assert said == [f"1 of 4 files have no sound track and are left out {keeps}; the first: {folder}/b.mp4"]
    for other in (signal(missing="blank"), Video(Dense(4, 1)), Image()):
        assert (
            complete(scanned(folder), other, said.append) == (scanned(folder), 0)
            or not complete(scanned(folder), other, said.append)[1]
        )
    assert complete(scanned(folder), Sound(1.0), said.append)[1] == 1
    assert len(said) == 2


def test_what_was_measured_is_believed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that `unveil data check` has seen are not opened again; those it found bad are not looked at."""
    manifest = scanned(folder)
    monkeypatch.setattr("unveil.data.sound.has_sound", lambda path: pytest.fail(f"{path} was opened"))
    table = manifest.table.append_column("has_audio", [[True, False, None, False]])
    table = table.append_column("error", [[None, None, "no frame could be decoded", None]])
    order = [Path(path).name for path in manifest.column("path")]
    assert order == ["a.mp4", "b.mp4", "broken.mp4", "silent.mp4"]
    kept, count = complete(Manifest(table), signal(), lambda text: None)
    assert [Path(path).name for path in kept.column("path")] == ["a.mp4", "broken.mp4"]
    assert count == 2


def test_nothing_but_mute_clips(tmp_path: Path) -> None:
    write_video(tmp_path / "b.mp4", numbered_frames(20))
    with pytest.raises(UserError, match=r"all 1 files have no sound track, .*b.mp4 for one: `--missing blank`"):
        complete(scanned(tmp_path), signal(), lambda text: None)


def test_silence_stands_in_only_where_it_is_asked_for(folder: Path) -> None:
    row = Row(str(folder / "b.mp4"))
    with pytest.raises(DecodeError, match=r"b\.mp4: has no sound track \(--missing blank"):
        signal().read(row)
    for sample in (signal(missing="blank").read(row), signal(missing="blank").views(row)[0]):
        assert sample["video"].any()
        assert sample["audio"].shape == (1, RATE)
        assert not sample["audio"].any()


# ---- through data set and loader


def data(**options: Any) -> Data:
    plain = [v2.Resize(16), v2.CenterCrop(16)]
    return Data(signal(frames=4, stride=2, seconds=0.5), transform=plain, evaluation=plain, **options)


def test_transforms_are_for_the_stream_of_pictures(clip: Path) -> None:
    manifest = Manifest.of([Row(str(clip), "x"), Row(str(clip), "y")])
    training = Dataset(manifest, data(erase=1.0, repeats=2), ["x", "y"], training=True, seed=3)
    first, second = training[0, 0]
    assert first["video"].shape == (3, 4, 16, 16)
    assert first["audio"].shape == (1, RATE // 2)
    assert torch.equal(first["audio"], second["audio"])  # one clip, cropped and erased twice
    assert not torch.equal(first["video"], second["video"])
    assert first["audio"].abs().max() <= 1
    testing = Dataset(manifest, data(clips=3, crops=3), ["x", "y"], training=False, seed=3)
    (sample,) = testing[0]
    assert sample["video"].shape == (9, 3, 4, 16, 16)
    assert sample["audio"].shape == (9, 1, RATE // 2)
    for view in range(9):
        assert torch.equal(sample["audio"][view], sample["audio"][view // 3 * 3])


def test_further_views_are_stacked_stream_by_stream(clip: Path) -> None:
    dataset = Dataset(Manifest.of([Row(str(clip))]), data(views=[[v2.CenterCrop(16)]]), None, training=True, seed=0)
    (sample,) = dataset[0, 0]
    assert sample["video"].shape == (2, 3, 4, 16, 16)
    assert sample["audio"].shape == (2, 1, RATE // 2)
    assert not torch.equal(*sample["audio"])  # each of a moment of its own


def test_a_bad_file_leaves_no_stream_behind(folder: Path, clip: Path) -> None:
    manifest = Manifest.of([Row(str(folder / "b.mp4")), Row(str(clip))])
    training = Dataset(manifest, data(), None, training=True, seed=0)
    (sample,) = training[0, 0]
    assert sample["index"] == 1
    assert "no sound track" in sample["bad"][0][1]
    testing = Dataset(manifest, data(), None, training=False, seed=0)
    batch = collate([*testing[0], *testing[1]], streams_in(data().signal))
    assert batch["video"].shape[0] == batch["audio"].shape[0] == len(batch["index"]) == 1
    assert len(batch["bad"]) == 1


def test_clips_are_mixed_with_their_sound() -> None:
    rows = Manifest.of([Row(f"{i}.mp4", label) for i, label in enumerate("xyx")])
    dataset = Dataset(rows, data(mixup=0.8), ["x", "y"], training=True, seed=0)
    generator = torch.Generator().manual_seed(0)
    batch = {
        "video": torch.randn(3, 3, 4, 8, 8, generator=generator),
        "audio": torch.randn(3, 1, 100, generator=generator),
        "label": torch.tensor([0, 1, 0]),
        "seed": torch.tensor([5, 6, 7]),
    }
    mixed = mix(dict(batch), dataset)
    share = mixed["label"][0, 0].item()
    assert 0 < share < 1
    torch.testing.assert_close(mixed["video"][0], share * batch["video"][0] + (1 - share) * batch["video"][1])
    waves = batch["audio"] - batch["audio"].mean(-1, keepdim=True)
    torch.testing.assert_close(mixed["audio"][1], share * waves[1] + (1 - share) * waves[0], atol=1e-6, rtol=1e-5)
    assert torch.equal(mixed["video"][2], batch["video"][2])
    assert torch.equal(mixed["audio"][2], batch["audio"][2])
    cut = Dataset(rows, data(cutmix=1.0), ["x", "y"], training=True, seed=0)
    with pytest.raises(UserError, match="no sound belongs to it"):
        mix(dict(batch), cut)


# ---- one stream of it


def test_a_stream_alone_is_read_as_its_own_signal() -> None:
    whole = data(erase=0.5, crops=3, clips=2)
    assert narrowed(whole, "both") is whole
    seen, heard = narrowed(whole, "video"), narrowed(whole, "audio")
    assert isinstance(seen.signal, Video)
    assert list(seen.evaluation) == list(whole.evaluation)
    assert (seen.crops, seen.erase) == (3, 0.5)
    assert isinstance(heard.signal, Sound)
    assert not heard.transform
    assert not heard.evaluation
    assert (heard.crops, heard.clips, heard.erase) == (1, 2, 0.0)
    with pytest.raises(UserError, match="--use depth: use video, audio, both"):
        narrowed(whole, "depth")
    only = Data(Video(Uniform(4)))
    assert narrowed(only, "video") is only


def test_what_becomes_of_mute_clips_can_be_changed() -> None:
    assert filling(data(), "blank").signal.missing == "blank"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(UserError, match="--missing maybe: use drop or blank"):
        filling(data(), "maybe")
    with pytest.raises(UserError, match="this one reads video alone"):
        filling(Data(Video(Uniform(4))), "blank")


def test_sounds_alone(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "tone.wav", tone(0.5))
    heard = narrowed(data(), "audio")
    (x,) = heard.signal.views(Row(str(path)))
    assert isinstance(x, Tensor)
    assert set(prepared(heard, x)) == {"audio"}
    assert np.abs(x.numpy()).max() > 0.4
