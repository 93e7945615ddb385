"""A run whose encoder has collapsed says so, in words: provoked as in the paper, by letting the gradient reach the keys."""

import html
from typing import Any

import numpy as np
import pytest
from PIL import Image

import unveil
from unveil.serve import report
from unveil.serve.collapse import collapse

QUICK = {"size": "debug", "crop": 32, "quiet": True, "device": "cpu", "max_steps": 60}
QUICK |= {"schedule.batch": 32, "loader.batch": 32, "loader.workers": 0, "optimizer.lr": 2.0}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(48):
        colours = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        colours.resize((40, 40), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


def test_simsiam_without_stop_gradient_collapses_and_it_is_said(pictures: Any, tmp_path: Any) -> None:
    """Table 1 of 2011.10566. The same run with it does not."""
    pages = {}
    for stop in (True, False):
        run: Any = unveil.pretrain("simsiam", data=pictures, out=tmp_path / f"{stop}", stop_gradient=stop, **QUICK)
        assert {"rankme", "feature_std", "projection_std", "projection_directions"} <= run.log()[-1].keys()
        pages[stop] = html.unescape(report(run).read_text())
    assert "The projections have collapsed: in the last steps" in pages[False]
    assert "--stop-gradient false" in pages[False]
    assert "collapsed" not in pages[True]
    assert "Directions of projections" in pages[True]


def test_what_is_said_of_a_log() -> None:
    healthy = {
        "rankme": 40.0,
        "feature_std": 0.5,
        "projection_std": 0.9,
        "projection_directions": 30.0,
        "queue_std": 0.9,
    }
    log = [{"step": step, **healthy} for step in range(1, 101)]
    assert collapse(log) == []
    assert collapse([]) == []
    [said] = collapse([*log, {"step": 101, "rankme": 1.01, "feature_std": 0.001}][-1:])
    assert "The encoder has collapsed" in said
    assert "RankMe is 1.01" in said
    # One bad step at the end is none: the last tenth counts. A tenth is.
    assert collapse([*log[:-1], {"step": 100, **healthy, "projection_directions": 1.0}]) == []
    bad = [line | {"projection_directions": 1.1} if line["step"] > 90 else line for line in log]
    assert "The projections have collapsed" in collapse(bad)[0]
    assert collapse(bad, samples=2) == []  # two samples always lie on one line
    [said] = collapse([{"step": 1, "queue_std": 0.001}])
    assert "queue" in said
