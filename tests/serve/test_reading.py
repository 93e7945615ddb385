"""Windows that processes read ahead of the network are those that one process reads."""

import os
import signal as signals
from itertools import islice

import pytest
import torch
from serving_runs import VIDEO, make_run, write_image, write_video

import unveil
from unveil.data import Dense, Visual
from unveil.data.workers import ANSWERING, reporting_workers
from unveil.errors import UserError
from unveil.recipe import Data
from unveil.serve import reading
from unveil.serve.windows import BadFile, stream


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Files of one window and of many; broken ones first, between and last; pictures, which are not stacked with clips."""
    folder = tmp_path_factory.mktemp("clips")
    for number, seconds in enumerate((0, 0.5, 2.5, 0.3, 0, 7.0, 0.8, 0.4, 1.7, 0)):
        if seconds:
            write_video(folder / f"{number}.mp4", seconds, colour=20 * number)
        else:
            (folder / f"{number}.mp4").write_bytes(b"no video")
    for number in range(3):
        write_image(folder / f"5{number}.png", number)
    return folder


@pytest.mark.parametrize("workers", [1, 2, 3, 100])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_workers_change_nothing(clips, workers, batch, monkeypatch):
    monkeypatch.setattr(reading, "FILES", 1)
    data = Data(Visual(Dense(4, 2)))
    here = list(stream(data, [clips], None, batch))
    there = list(stream(data, [clips], None, batch, workers))
    assert sum(isinstance(item, BadFile) for item in here) == 3
    assert len(here) == len(there)
    for a, b in zip(here, there, strict=True):
        assert type(a) is type(b)
        if isinstance(a, BadFile):
            assert a == b
            continue
        assert a.windows == b.windows
        assert torch.equal(a.x["video"], b.x["video"])


class Endless(Visual):
    """A film without end, which says in a file how far it was read; or one whose decoder takes its process along, after a while."""

    def windows(self, path, hop=None):
        number = 0
        while True:
            # Not before all processes have been started: PyTorch raises wherever a death finds it, and a fork hides that.
            if "crash" in str(path) and number == 30:
                os.kill(os.getpid(), signals.SIGKILL)
            with open(f"{path}.read", "a") as file:
                file.write(".")
            yield float(number), number + 1.0, torch.full((4, 3, 8, 8), number % 256, dtype=torch.uint8)
            number += 1


def test_memory_is_bounded(tmp_path):
    paths = [tmp_path / f"{number}.mp4" for number in range(8)]
    for path in paths:
        path.touch()
    items = stream(Data(Endless(Dense(4, 2))), paths, None, 3, 2)
    for number, item in enumerate(islice(items, 40)):
        assert item.x["video"][:, 0, 0, 0, 0].tolist() == [3 * number, 3 * number + 1, 3 * number + 2]
    items.close()
    # What is ready, what is on the way, and what is being put together: at most a few batches of each worker.
    assert 120 <= os.path.getsize(f"{paths[0]}.read") <= 120 + 5 * 3
    assert os.path.getsize(f"{paths[1]}.read") <= 5 * 3
    assert not os.path.exists(f"{paths[2]}.read")


def test_a_worker_that_dies_is_said(tmp_path):
    paths = [tmp_path / f"{number}-crash.mp4" for number in range(8)]
    for path in paths:
        path.touch()
    with pytest.raises(UserError, match=r"a loader worker has died.*lower --workers"), reporting_workers(ANSWERING):
        list(stream(Data(Endless(Dense(4, 2))), paths, None, 3, 2))


def test_few_files_start_no_process(clips, monkeypatch):
    monkeypatch.setattr(reading, "load", lambda *_: pytest.fail("a process was started"))
    list(stream(Data(Visual(Dense(4, 2))), sorted(clips.glob("*.mp4"))[:3], None, 2, 8))


def test_embed_and_predict_read_ahead(tmp_path, monkeypatch):
    folder = tmp_path / "clips"
    for number in range(8):
        write_video(folder / f"{number}.mp4", 1.0, colour=20 * number)
    run = make_run(tmp_path / "run", "vit", {**VIDEO, "num_classes": 2}, ["walk", "run"])
    begun, load = [], reading.load
    monkeypatch.setattr(reading, "load", lambda *given: (begun.append(given), load(*given))[1])
    rows, indices = [], []
    for workers in (0, 2):
        rows.append(unveil.predict(run, folder, workers=workers, quiet=True))
        out = tmp_path / f"index{workers}"
        indices.append(unveil.embed(run, data=folder, out=out, workers=workers, quiet=True))
        assert len(begun) == 2 * workers
    assert rows[0] == rows[1]
    for name in ("vectors.f32", "embeddings.parquet"):
        assert (indices[0] / name).read_bytes() == (indices[1] / name).read_bytes()
