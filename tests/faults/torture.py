"""Thousands of damaged files and hundreds of kills, with the figures of docs/reliability.md: `make torture`.

    python tests/faults/torture.py mutants --count 20000 --seed 1
    python tests/faults/torture.py kills --count 200 --seed 1
    python tests/faults/torture.py page

The first two write benchmarks/results/torture-*.json and end with 1 if anything went wrong; what did is kept in --work, and
in the JSON with what recreates it. The third writes the figures into docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "reliability.md"
sys.path.insert(0, str(ROOT / "tests" / "data"))

from folders import judged_folder, trained_folder  # noqa: E402
from kills import Trial, trial, uninterrupted, write_clips  # noqa: E402
from mutants import IMAGES, NON_FILES, VIDEOS, modality, population, write_sources  # noqa: E402
from trials import Judge  # noqa: E402

STEPS = 120


def mutants(count: int, seed: int, work: Path) -> dict[str, Any]:
    """Every way of reading on `count` damaged files, then whole folders of them through the command line."""
    sources = work / "sources"
    write_sources(sources)
    folder = fresh(work / "mutants")
    failures: list[dict[str, Any]] = []
    containers: dict[str, Counter[str]] = defaultdict(Counter)
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    slowest, largest = 0.0, 0
    with Judge() as judge, Judge(without_rights=True) as nobody:
        for name in (*VIDEOS, *IMAGES):
            verdict = judge.verdict(str(sources / name), modality(name))
            if verdict.outcome != "ok":
                failures.append({"source": name, "kind": None, "outcome": verdict.outcome, "says": verdict.says})
        for number, mutant in enumerate(population(count, seed), 1):
            path = mutant.write(sources, folder)
            verdict = (nobody if mutant.kind == "unreadable" else judge).verdict(str(path), mutant.modality)
            containers[path.suffix.lstrip(".")][verdict.outcome] += 1
            kinds[mutant.kind][verdict.outcome] += 1
            slowest, largest = max(slowest, verdict.seconds), max(largest, verdict.memory)
            if verdict.outcome in mutant.allowed:
                if mutant.kind not in NON_FILES:
                    path.unlink()
            else:
                failures.append({**vars(mutant), "outcome": verdict.outcome, "says": verdict.says, "kept": str(path)})
                print(f"{verdict.outcome}: {mutant}: {verdict.says.splitlines()[0]}", flush=True)
            if number % 500 == 0:
                print(f"{number}/{count}  {len(failures)} failures", flush=True)
    total: Counter[str] = Counter()
    for outcomes in containers.values():
        total += outcomes
    folders = [
        judged_folder(sources, fresh(work / "check"), seed),
        trained_folder(sources, fresh(work / "train"), seed),
    ]
    for found in folders:
        failures += [{"folder": found["what"], "outcome": "WRONG", "says": text} for text in found.pop("wrong")]
    return {
        "files": sum(total.values()),
        "outcomes": dict(total),
        "containers": {name: dict(outcomes) for name, outcomes in sorted(containers.items())},
        "kinds": {name: dict(outcomes) for name, outcomes in sorted(kinds.items())},
        "slowest_seconds": round(slowest, 3),
        "most_memory_mib": largest >> 20,
        "folders": folders,
        "failures": failures,
    }


def kills(count: int, seed: int, work: Path, fresh_processes: int = 20) -> dict[str, Any]:
    """`count` interruptions, and for each trial whether the run that went on ended as the one that was never stopped."""
    clips = write_clips(fresh(work / "kills") / "clips")
    folder = clips.parent
    expected, lives = None, {}
    for workers in (0, 1, 2):
        found, lives[workers] = uninterrupted(clips, folder / f"whole-{workers}", workers, STEPS)
        expected = expected or found
        assert not expected.differences(found), f"{workers} workers change the result"
    assert expected is not None
    trials: list[Trial] = []
    began = time.monotonic()
    while (done := sum(len(t.stops) for t in trials)) < count:
        number = len(trials)
        # The first ones in processes that import everything anew: their life begins with seconds of imports.
        new = done < fresh_processes
        workers = number % 3
        life = lives[workers] + (5 if new else 0)
        out = folder / f"run-{number}"
        made = trial(clips, out, seed * 10_000 + number, workers, STEPS, expected, life, fresh=new)
        trials.append(made)
        if made.wrong:
            print(f"WRONG: {made.as_dict()}", flush=True)
        else:
            shutil.rmtree(out)
        print(f"{done + len(made.stops)}/{count}  {time.monotonic() - began:.0f} s", flush=True)
    stops = [stop for made in trials for stop in made.stops]
    return {
        "kills": len(stops),
        "runs": len(trials),
        "identical": sum(len(made.stops) for made in trials if not made.wrong),
        "steps": STEPS,
        "fresh_processes": sum(len(made.stops) for made in trials if made.fresh),
        "by_kind": dict(Counter(stop.how for stop in stops)),
        "by_workers": dict(Counter(str(made.workers) for made in trials for _ in made.stops)),
        "while_writing": sum(stop.aim == "checkpoint" for stop in stops),
        "before_the_first_step": sum(not stop.step for stop in stops),
        "failures": [made.as_dict() for made in trials if made.wrong],
    }


# ---- results and page


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def about(seed: int, began: float) -> dict[str, Any]:
    """When, where and with what."""
    from unveil.run import versions

    model = next(
        (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), ""
    ).partition(": ")[2]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "seed": seed,
        "seconds": round(time.monotonic() - began),
        "machine": f"{model or platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "versions": versions(),
    }


def table(head: list[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def mutants_section(r: dict[str, Any]) -> str:
    outcomes = {"ok": "read", "bad": "refused, named", "UNSTEADY": "not twice the same", "WRONG": "wrong"}
    outcomes |= {"CRASH": "crashed", "HANG": "hung"}
    rows = [
        [f"`{name}`", sum(found.values()), *(found.get(key, 0) for key in outcomes)]
        for name, found in r["containers"].items()
    ]
    rows.append(["all", r["files"], *(r["outcomes"].get(key, 0) for key in outcomes)])
    return "\n\n".join(
        [
            table(["suffix", "files", *outcomes.values()], rows),
            f"Slowest file {r['slowest_seconds']:.2f} s; most memory {r['most_memory_mib']} MiB above the process's own. "
            f"{_where(r)}",
            "\n".join(f"- {found['says']}" for found in r["folders"]),
        ]
    )


def kills_section(r: dict[str, Any]) -> str:
    words = {
        "kill": "SIGKILL to the process",
        "kill-group": "SIGKILL to it and its workers",
        "kill-worker": "SIGKILL to one worker",
        "terminate": "SIGTERM",
        "interrupt": "Ctrl-C",
    }
    rows = [[words[name], count] for name, count in sorted(r["by_kind"].items(), key=lambda item: -item[1])]
    return "\n\n".join(
        [
            f"**{r['kills']} interruptions of {r['runs']} runs: {r['identical']} identical resumes.** "
            f"{r['before_the_first_step']} came before the first step was done, {r['while_writing']} were aimed at the moment "
            f"in which a file is written, {r['fresh_processes']} hit processes that had just been started from nothing. "
            f"Workers: {', '.join(f'{count} with {name}' for name, count in sorted(r['by_workers'].items()))}.",
            table(["what", "times"], rows),
            _where(r),
        ]
    )


def _where(r: dict[str, Any]) -> str:
    v = r["versions"]
    return (
        f"{r['date']}, seed {r['seed']}, {r['seconds'] / 60:.0f} min on {r['machine']}; Python {v['python']}, torch {v['torch']}, "
        f"PyAV {v['av']} (libavcodec {v['libavcodec']})."
    )


def page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, section in (("mutants", mutants_section), ("kills", kills_section)):
        file = RESULTS / f"torture-{name}.json"
        if file.exists():
            head, _, rest = text.partition(f"<!-- {name} -->\n")
            _, _, tail = rest.partition(f"<!-- end of {name} -->")
            figures = section(json.loads(file.read_text(encoding="utf-8")))
            text = f"{head}<!-- {name} -->\n\n{figures}\n\n<!-- end of {name} -->{tail}"
    PAGE.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("mutants", "kills", "page"))
    parser.add_argument("--count", type=int, help="20,000 mutants, 200 kills")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("/tmp/unveil-torture"))
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.what == "page":
        page()
        return
    began = time.monotonic()
    # Whoever is not root has to be able to reach the files that are then found unreadable.
    asked.work.mkdir(parents=True, exist_ok=True)
    asked.work.chmod(0o755)
    task, count = {"mutants": (mutants, 20_000), "kills": (kills, 200)}[asked.what]
    result = task(asked.count or count, asked.seed, asked.work)
    result = {**about(asked.seed, began), **result}
    out = asked.out or RESULTS / f"torture-{asked.what}.json"
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(
        json.dumps({k: v for k, v in result.items() if k not in ("containers", "kinds", "versions")}, indent=1)[:6000]
    )
    sys.exit(1 if result["failures"] else 0)


if __name__ == "__main__":
    main()
