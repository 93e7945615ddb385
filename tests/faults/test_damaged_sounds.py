"""Damaged files of sound: read, or refused with a DecodeError that names them; whichever way the damage came about."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from mutants import BYTES, mutate
from sounds import CODECS, chirp, write_clip, write_sound
from trials import Judge

OF_EACH = 1
SEED = 7


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    rates = {suffix: 48000 if codec == "libopus" else 44100 for suffix, codec in CODECS.items()}
    files = [write_sound(folder / f"a{suffix}", chirp(3.0, rate), rate) for suffix, rate in rates.items()]
    return [*files, write_clip(folder / "film.mp4", [0.4], [0.4], seconds=1.0, sound=(0.2, 1.0))]


def test_every_kind_of_damage_to_every_container(sources, tmp_path):
    outcomes = []
    with Judge(limit=20) as judge:
        assert [v for v in (judge.verdict(str(path), "sound") for path in sources) if v.outcome != "ok"] == []
        for number, path in enumerate(sources):
            other = sources[(number + 1) % len(sources)].read_bytes()
            for kind in BYTES:
                for turn in range(OF_EACH):
                    rng = random.Random(f"{path.name} {kind} {turn} {SEED}")
                    damaged = tmp_path / f"{kind}-{turn}-{path.name}"
                    damaged.write_bytes(mutate(path.read_bytes(), kind, rng, other))
                    outcomes.append((damaged.name, judge.verdict(str(damaged), "sound")))
                    damaged.unlink()
    assert [(name, verdict) for name, verdict in outcomes if verdict.outcome not in ("ok", "bad")] == []
    count = Counter(verdict.outcome for _, verdict in outcomes)
    assert (
        min(count["ok"], count["bad"]) > len(outcomes) // 10
    )  # the damage is real, and it is not all that is looked at
    assert all(verdict.outcome == "bad" for name, verdict in outcomes if name.startswith(("empty", "text")))
