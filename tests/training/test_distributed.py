"""Several processes learn what one learns; one that dies takes the run with it; checkpoints fit any number of them."""

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from media import numbered_frames, write_video
from safetensors.torch import load_file

import unveil
from unveil import recipes
from unveil.errors import UserError
from unveil.training import checkpoint, fit, loop, processes

TINY = {"size": "debug", "crop": 32, "patch": 8, "frames": 4, "stride": 1}
HOW = {"loader.workers": 0, "schedule.batch": 12, "loader.batch": 4, "quiet": True, "seed": 5, "device": "cpu"}
HARD = {"drop_path": 0.5, "sample.mixup": 0.8, "sample.cutmix": 1.0, "sample.erase": 0.5}
STEPS = 3

#: Every pre-training and every fine-tuning network, with all that draws at random while it learns.
CASES = {
    "videomae": ("pretrain", "videomae", {"ema": 0.5, "clip_gradient": 0.1}),
    "mae_st": ("pretrain", "mae_st", {}),
    "mae": ("pretrain", "mae", {}),
    "omnimae": ("pretrain", "omnimae", {"data_weight": [2, 1]}),
    "vit": ("train", "vit", HARD),
    "mae_st:finetune": ("train", "mae_st", {**HARD, "dropout": 0.5}),
    "mae:finetune": ("train", "mae", HARD),
    # Told from one another, samples have to be in one micro-batch, or the processes' together.
    "mocov3": ("pretrain", "mocov3", {"norm": "group", "loader.batch": 12}),
    "moco": ("pretrain", "moco", {"norm": "group", "queue": 32, "groups": 1}),
    "videomae:finetune": ("train", "videomae", {"class_weights": True, "drop_path": 0.5, "ema": 0.5}),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for number in range(9):
        path = folder / "abb"[number % 3] / f"{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_video(path, numbered_frames(8, 40, 40, seed=number), fps=8)
    return folder


@pytest.fixture(scope="module")
def pictures(clips, tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    for path in clips.rglob("*.mp4"):
        (folder / path.parent.name).mkdir(exist_ok=True)
        frame = unveil.data.read_frames(path, indices=[0])[0]
        Image.fromarray(frame.numpy()).save(folder / path.parent.name / f"{path.stem}.png")
    return folder


def plan_of(name, clips, pictures, out, monkeypatch, **more):
    """What `unveil pretrain …` would carry out; the run folder is written."""
    verb, recipe, flags = CASES[name]
    data = {"mae": pictures, "omnimae": [pictures, clips]}.get(recipe, clips)
    own = inspect.signature(recipes.find(recipe)).parameters  # a fine-tuning has these, too
    tiny = {k: v for k, v in TINY.items() if k in own}
    plans = []
    monkeypatch.setattr("unveil.training.fit", plans.append)
    getattr(unveil, verb)(
        recipe,
        data=data,
        out=out,
        max_steps=STEPS,
        checkpoint_every=0,
        keep=STEPS,
        **{**tiny, **HOW, **flags, **more},
    )
    monkeypatch.undo()
    return plans[0]


def rewound(out, to):
    """A copy of a finished run as a kill in its second step would have left it."""
    shutil.copytree(out, to)
    for path in checkpoint.files(to)[:-1]:
        path.unlink()
    info = json.loads((to / "run.json").read_text())
    (to / "run.json").write_text(json.dumps({**info, "status": "running"}))
    return to


def train_all(plans):
    """In each of several processes: one run after the other."""
    for plan in plans:
        loop._train(plan)


def losses(out):
    return [line["loss"] for line in unveil.load(out).log()]


@pytest.fixture(scope="module")
def runs(clips, pictures, tmp_path_factory):
    """{(case, processes, strategy): run folder}: all the runs of two processes share one start."""
    folder = tmp_path_factory.mktemp("runs")
    found, several, one, again = {}, [], {}, []
    with pytest.MonkeyPatch.context() as patch:
        for name in CASES:
            for count, strategy in ((1, "ddp"), (2, "ddp"), (2, "fsdp")):
                out = folder / f"{name}-{count}-{strategy}".replace(":", "-")
                plan = plan_of(name, clips, pictures, out, patch, devices=count, strategy=strategy)
                found[name, count, strategy] = out
                if count == 1:
                    one[name] = plan
                    fit(plan)
                    # What one process wrote, two read, and the other way round.
                    for way in ("ddp", "fsdp") if name == "videomae" else ():
                        found[name, "1 → 2", way] = rewound(out, folder / f"{out.name}-2-{way}")
                        again.append(replace(plan, out=found[name, "1 → 2", way], devices=2, strategy=way))
                else:
                    several.append(plan)
    processes.start(train_all, several + again, 2)
    for way in ("ddp", "fsdp"):
        found["videomae", "2 → 1", way] = rewound(found["videomae", 2, way], folder / f"videomae-1-after-{way}")
        fit(replace(one["videomae"], out=found["videomae", "2 → 1", way]))
    return found


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", CASES)
def test_two_processes_learn_what_one_learns(runs, name, strategy):
    one, two = runs[name, 1, "ddp"], runs[name, 2, strategy]
    assert len(losses(one)) == STEPS
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    a, b = (load_file(out / "weights.safetensors") for out in (one, two))
    assert a.keys() == b.keys()
    for tensor, other in zip(a.values(), b.values(), strict=True):
        assert (tensor - other).abs().max() < 1e-3  # Adam's steps have the sign of gradients near zero
    first, last = unveil.load(one).log()[-1], unveil.load(two).log()[-1]
    assert {k for k in first} == {k for k in last}


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("way", ["1 → 2", "2 → 1"])
def test_a_run_goes_on_with_another_number_of_processes(runs, way, strategy):
    out = runs["videomae", way, strategy]
    assert losses(out) == pytest.approx(losses(runs["videomae", 1, "ddp"]), abs=1e-5)
    assert unveil.load(out).info["status"] == "complete"


def die(plan):
    """Train; the second process is killed in the second step."""
    rate = loop.learning_rate

    def last_rate(step, *rest):
        if processes.rank() == 1 and step == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return rate(step, *rest)

    loop.learning_rate = last_rate
    loop._train(plan)


def fail(plan):
    """Train; the second process fails where the first is waiting for it."""

    backward = loop._backward

    def failing(*arguments):
        if processes.rank() == 1:
            raise ZeroDivisionError("of rank one")
        return backward(*arguments)

    loop._backward = failing
    loop._train(plan)


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (die, UserError, "process 1 of 2 was ended by SIGKILL"),
        (fail, RuntimeError, "(?s)process 1 of 2 failed.*ZeroDivisionError: of rank one"),
    ],
)
def test_a_process_that_dies_ends_the_run_with_its_error(
    function, error, words, clips, pictures, tmp_path, monkeypatch
):
    plan = plan_of("videomae", clips, pictures, tmp_path / "run", monkeypatch, devices=2)
    with pytest.raises(error, match=words):
        processes.start(function, plan, 2)


COMMAND = [
    "pretrain", "videomae", "--size", "debug", "--crop", "32", "--patch", "8", "--frames", "4", "--stride", "1",
    "--loader.workers", "0", "--schedule.batch", "4", "--device", "cpu",
]  # fmt: skip


def test_torchrun(clips, tmp_path):
    here = [*COMMAND, "--data", str(clips), "--val-fraction", "0", "--max-steps", "2"]
    unveil.cli.run([*here, "--out", str(tmp_path / "one"), "--quiet"])
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "-m", "unveil.cli", *here, "--out", str(tmp_path / "two")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    assert done.stderr.count("on 2 × cpu") == 1  # one of them speaks
    refused = subprocess.run(
        [*launch, "-m", "unveil.cli", *here, "--out", str(tmp_path / "two"), "--ratio", "0.5"],
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert refused.returncode != 0
    assert "holds another run" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_of_them_and_they_save(clips, tmp_path, number):
    here = [
        *COMMAND,
        "--data",
        str(clips),
        "--val-fraction",
        "0",
        "--max-steps",
        "1000",
        "--out",
        str(tmp_path / "run"),
    ]
    run = subprocess.Popen(
        [sys.executable, "-m", "unveil.cli", *here, "--devices", "2"], stderr=subprocess.PIPE, text=True
    )
    log = tmp_path / "run" / "log.jsonl"
    while not (log.is_file() and log.stat().st_size):
        assert run.poll() is None, run.stderr and run.stderr.read()
        time.sleep(0.1)
    run.send_signal(number)
    _, words = run.communicate(timeout=60)
    assert run.returncode == 0, words
    assert "saved; the same command goes on" in words
    info = unveil.load(tmp_path / "run").info
    assert info["status"] == "running"
    assert info["steps"] == len(losses(tmp_path / "run"))
