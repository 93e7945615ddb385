"""Does memory stay flat? Training, `predict` and `embed` as people run them, watched from outside.

    python benchmarks/memory.py --out benchmarks/results/memory.json          # about 15 minutes on two cores

Makes small H.264 clips (a few of them broken), then starts the command itself in a process group of its own, and every second
adds up the memory of that process and of its loader workers: anonymous and shared pages, those shared by fork counted once
(PSS); and their open files. A line is fitted to what is left after the first fifth; memory is flat when that line
rises by less than 2 % over the rest. `predict` keeps the rows that it returns, about 1 kB a file, and is not flat for it.
Linux only: it reads /proc.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np

from unveil.run import versions

FLAT = 0.02
WARM_UP = 0.2
STARTING = 15.0  # seconds that imports may take; they are no growth
MIB = 2**20


def write_clip(path: Path, frames: int, seed: int, side: int = 32, fps: int = 10) -> None:
    rng = np.random.default_rng(seed)
    still = rng.integers(0, 255, (side, side, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "28"})
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for k in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(still, k % side, axis=1), format="rgb24")))
        container.mux(stream.encode(None))


def make_clips(folder: Path, count: int, broken: int) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        write_clip(folder / f"{i:05d}.mp4", 24, i)
    whole = (folder / "00000.mp4").read_bytes()
    for i in range(broken):
        (folder / f"broken{i}.mp4").write_bytes(whole[: len(whole) // (i + 2)])


def family(group: int) -> list[int]:
    """The living processes of a process group (zombies are none of them, see `zombies`)."""
    return [pid for pid, state in _members(group) if state != "Z"]


def zombies(group: int) -> list[int]:
    return [pid for pid, state in _members(group) if state == "Z"]


def _members(group: int) -> list[tuple[int, str]]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            if int(fields[2]) == group:
                found.append((int(name), fields[0]))
    return found


def memory(pid: int) -> int:
    """Bytes that this process alone answers for: its share of anonymous and shared memory; 0 for one that has just ended.

    Not the libraries' code: what of it is counted depends on who else on the machine has it mapped. Where the kernel keeps
    no shares, RSS.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        shares = [line.split() for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))]
        if shares:
            return sum(int(share[1]) for share in shares) * 1024
    except OSError:
        pass
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0


def open_files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


@dataclass
class Watched:
    """A command, watched: a point per sample of /proc."""

    name: str
    seconds: list[float] = field(default_factory=list)
    done: list[float] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    workers: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    processes: list[int] = field(default_factory=list)
    status: int = 0
    left: int = 0
    most_zombies: int = 0

    def result(self, of: float) -> dict[str, Any]:
        total = np.array(self.parent) + np.array(self.workers)
        done = np.array(self.done)
        settled = (done >= WARM_UP * of) & (np.array(self.seconds) >= STARTING)
        # Points after the last piece of work are the writing of results and the end of workers.
        settled &= done < of
        growth = {name: _growth(done[settled], np.array(v)[settled]) for name, v in self._series(total).items()}
        return {
            "exit_status": self.status,
            "seconds": round(self.seconds[-1], 1),
            "done": of,
            "points": int(settled.sum()),
            "processes": int(max(self.processes)),
            "mib_at_a_fifth": round(float(total[settled][:5].mean()) / MIB, 1),
            "mib_at_the_end": round(float(total[settled][-5:].mean()) / MIB, 1),
            "mib_most": round(float(total.max()) / MIB, 1),
            "growth": {name: round(value, 5) for name, value in growth.items()},
            "open_files": [int(np.array(self.files)[settled][:5].max()), int(np.array(self.files)[settled][-5:].max())],
            "zombies_most": self.most_zombies,
            "processes_left": self.left,
            "flat": bool(growth["total"] < FLAT),
            "curve": [[round(float(x)), round(float(y) / MIB, 1)] for x, y in _thin(done, total)],
        }

    def _series(self, total: np.ndarray) -> dict[str, Any]:
        return {"total": total, "parent": self.parent, "workers": self.workers}


def _growth(x: np.ndarray, y: np.ndarray) -> float:
    """Rise of the fitted line from the first to the last point, as a share of its mean."""
    if len(x) < 10 or not y.mean():
        return 0.0 if not y.any() else float("nan")
    slope = np.polyfit(x, y, 1)[0]
    return float(slope * (x[-1] - x[0]) / y.mean())


def _thin(x: np.ndarray, y: np.ndarray, most: int = 100) -> list[tuple[float, float]]:
    keep = np.unique(np.linspace(0, len(x) - 1, min(most, len(x))).round().astype(int))
    return list(zip(x[keep], y[keep], strict=True))


def watch(name: str, argv: list[str], progress: Any, every: float = 1.0) -> Watched:
    """Run `unveil` with these arguments in a process group of its own; `progress()` says how much is done."""
    found = Watched(name)
    process = subprocess.Popen(
        [sys.executable, "-m", "unveil.cli", *argv], stdout=subprocess.DEVNULL, start_new_session=True
    )
    begun = time.monotonic()
    while process.poll() is None:
        time.sleep(every)
        members = family(process.pid)
        if process.pid not in members:
            continue
        found.seconds.append(time.monotonic() - begun)
        found.done.append(progress())
        found.parent.append(memory(process.pid))
        found.workers.append(sum(memory(pid) for pid in members if pid != process.pid))
        found.files.append(sum(open_files(pid) for pid in members))
        found.processes.append(len(members))
        found.most_zombies = max(found.most_zombies, len([z for z in zombies(process.pid) if z != process.pid]))
    found.status = process.returncode
    time.sleep(2)
    found.left = len(family(process.pid))
    return found


def last_step(run: Path) -> int:
    """The step of the last whole line of a log, from its tail alone."""
    try:
        with (run / "log.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            return json.loads(line)["step"]
        except (ValueError, KeyError):
            continue
    return 0


def main(out: Path, work: Path, samples: int, clips: int, files: int, hours: float) -> None:
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "clips").is_dir():
        make_clips(work / "clips", clips, broken=max(1, clips // 50))
        for label in ("left", "right"):
            make_clips(work / "labelled" / label, 4, broken=0)
    if not (work / "hour.mp4").is_file():
        write_clip(work / "hour.mp4", round(hours * 3600 * 10), 0)
    many = work / "many"
    if not many.is_dir():
        many.mkdir()
        originals = sorted((work / "clips").glob("*.mp4"))
        for i in range(files):
            os.link(originals[i % len(originals)], many / f"{i:06d}.mp4")
    one = ["--device", "cpu", "--size", "debug", "--crop", "32", "--patch", "8", "--frames", "4"]
    batch = 32
    results: dict[str, Any] = {}

    def note(watched: Watched, of: float, unit: str) -> None:
        results[watched.name] = {"unit": unit, **watched.result(of)}
        shown = {k: v for k, v in results[watched.name].items() if k != "curve"}
        print(watched.name, json.dumps(shown), flush=True)

    for name, workers in (("pretrain, 2 workers", 2), ("pretrain, no workers", 0)):
        steps = samples // batch
        run = work / f"run-{workers}"
        argv = ["pretrain", "videomae", "--data", str(work / "clips"), "--out", str(run), "--overwrite", *one]
        argv += [
            "--max-steps",
            str(steps),
            "--schedule.batch",
            str(batch),
            "--schedule.epochs",
            "1000000",
            "--stride",
            "2",
        ]
        argv += ["--loader.workers", str(workers), "--quiet"]
        note(watch(name, argv, lambda run=run: last_step(run) * batch), steps * batch, "samples")

    classifier, pretrained = work / "classifier", work / "run-2"
    argv = ["train", "vit", "--data", str(work / "labelled"), "--out", str(classifier), *one]
    argv += ["--overwrite", "--max-steps", "0", "--val-fraction", "0", "--quiet"]
    subprocess.run([sys.executable, "-m", "unveil.cli", *argv], check=True)
    index = ["--out", str(work / "index"), "--overwrite", "--quiet"]
    for name, argv in (
        ("predict, many files", ["predict", str(classifier), str(many), "--out", str(work / "rows.jsonl"), "--quiet"]),
        ("embed, many files", ["embed", str(pretrained), "--data", str(many), *index]),
        (f"embed, one file of {hours:g} h", ["embed", str(pretrained), "--data", str(work / "hour.mp4"), *index]),
    ):
        begun = time.monotonic()
        watched = watch(name, argv, lambda begun=begun: time.monotonic() - begun, every=0.5)
        note(watched, watched.done[-1], "seconds")

    report = {
        "what": "memory (PSS of anonymous and shared pages) of a command and its workers; growth: rise of a line fitted to all "
        "but the first fifth, as a share of the mean; flat: below 2 %",
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": versions(),
        "files": {"clips": clips, "predicted": files, "hours": hours},
        "results": results,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    wrong = [name for name, r in results.items() if not r["flat"] or r["processes_left"] or r["exit_status"]]
    print("not flat, or not ended well: " + ", ".join(wrong) if wrong else f"flat; written to {out}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/memory.json"))
    parser.add_argument("--work", type=Path, default=Path("memory-work"))
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--hours", type=float, default=6.0)
    given = parser.parse_args()
    main(given.out, given.work, given.samples, given.clips, given.files, given.hours)
