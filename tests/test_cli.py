"""The command line: flags from signatures, errors that name what was meant, and a quick start."""

import subprocess
import sys

import pytest

from unveil import cli, verbs
from unveil.errors import UserError


@pytest.fixture
def called(monkeypatch):
    """Verbs that only note how they were called."""
    calls = []

    def note(name):
        original = getattr(verbs, name)

        def verb(*args, **flags):
            calls.append((args, flags))

        verb.__signature__ = __import__("inspect").signature(original)
        verb.__doc__, verb.__module__ = original.__doc__, original.__module__
        return verb

    for name in ("pretrain", "train", "evaluate", "predict", "embed", "search", "report"):
        monkeypatch.setattr(verbs, name, note(name))
    return calls


def test_recipe_flags_field_flags_and_the_verbs_own(called):
    cli.run(
        [
            "pretrain",
            "videomae",
            "--data",
            "a",
            "--data",
            "b",
            "--out",
            "o",
            "--size",
            "S",
            "--optimizer.lr",
            "1e-3",
            "--max-steps",
            "7",
        ]
    )
    args, flags = called[0]
    assert args == ("videomae",)
    assert flags["data"] == ["a", "b"]
    assert (flags["size"], flags["optimizer.lr"], flags["max_steps"]) == ("S", 1e-3, 7)
    assert "ratio" not in flags  # what was not given does not hide a preset


def test_null_is_a_value_and_not_a_flag_left_out(called):
    cli.run(["pretrain", "mae", "--data", "a", "--out", "o", "--normalize", "null", "--compile", "true"])
    flags = called[0][1]
    assert flags["normalize"] is None
    assert flags["compile"] is True
    assert "ratio" not in flags
    with pytest.raises(UserError, match="crop"):
        cli.run(["pretrain", "mae", "--data", "a", "--out", "o", "--crop", "null"])


def test_dashes_underscores_equals_signs_and_any_order(called):
    cli.run(
        [
            "pretrain",
            "--data=a",
            "--max_steps=3",
            "mae",
            "--out",
            "o",
            "--optimizer.weight-decay",
            "0.1",
            "--overwrite",
            "--ema=0.5",
        ]
    )
    args, flags = called[0]
    assert args == ("mae",)
    assert flags["overwrite"] is True
    assert (flags["max_steps"], flags["optimizer.weight_decay"], flags["ema"]) == (3, 0.1, 0.5)


def test_a_config_file_sets_the_same_flags(called, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("size: L\nratio: 0.5\nmax_steps: 3\noptimizer:\n  lr: 0.25\n")
    cli.run(["pretrain", "mae", "--config", str(file), "--data", "a", "--out", "o", "--ratio", "0.6"])
    flags = called[0][1]
    assert (flags["size"], flags["ratio"], flags["max_steps"], flags["optimizer.lr"]) == ("L", 0.6, 3, 0.25)


def test_other_verbs(called):
    cli.run(["predict", "r", "a.mp4", "b.mp4", "--top", "3"])
    assert called[0][0] == ("r", "a.mp4", "b.mp4")
    assert called[0][1]["top"] == 3
    cli.run(["evaluate", "r", "--data", "d", "--by", "knn"])
    assert called[1][1]["by"] == "knn"
    cli.run(["search", "i", "q.mp4", "--html", "p.html"])
    assert called[2][0] == ("i", "q.mp4")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("pretrain videomae --data a --out o --raito 0.5", "--ratio"),
        ("pretrain videomae --data a --out o --optimizer.rl 1", "--optimizer.lr"),
        ("pretrain videomae --data a --out o --size XXL", "XXL|size"),
        ("pretrain videomae --data a --out o --max-steps many", "max"),
        ("pretrain videomae --out o", "data"),
        ("pretrain vidomae --data a --out o", "videomae"),
        ("pretrain", "needs a recipe"),
        ("finetune --data a --out b", "needs a run folder"),
        ("evaluate r --data d --by magic", "magic|by"),
        ("pretrian videomae", "pretrain"),
        ("data", "data check.*data builtin"),
        ("data chekc x", "data check"),
        ("data builtin moving-digit --out o", "moving-digits"),
        ("recipes vitt", "vit"),
    ],
)
def test_mistakes_are_named(line, says):
    with pytest.raises(UserError, match=says):
        cli.run(line.split())


def test_help_version_and_recipes(capsys):
    cli.run([])
    assert "pretrain RECIPE" in capsys.readouterr().out
    cli.run(["--version"])
    assert "unveil 0." in capsys.readouterr().out
    cli.run(["recipes"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("vit", "mae", "mae_st", "videomae"))
    cli.run(["recipes", "videomae", "--size", "L"])
    shown = capsys.readouterr().out
    assert "GMACs" in shown
    with pytest.raises(SystemExit) as stop:
        cli.run(["pretrain", "videomae", "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in ("--ratio", "--optimizer.lr", "--max-steps", "--data"))


def test_main_prints_the_sentence_and_exits_with_2(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["unveil", "pretrain", "nothing"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("unveil: ")


def test_nothing_heavy_is_imported_for_help():
    code = "import sys, unveil, unveil.cli as c; c.run([]); print([m for m in ('torch','numpy','rich','av') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip().endswith("[]")


def test_doctor_tells_what_there_is(capsys):
    from unveil.doctor import doctor

    doctor()
    shown = capsys.readouterr().out
    assert "torchvision ops" in shown
    assert "decodes h264" in shown
