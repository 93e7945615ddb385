"""The examples run, and the README's table of systems is what the recipes say."""

import importlib.util
import sys
from pathlib import Path

import unveil
from unveil.recipes import find

ROOT = Path(__file__).parents[1]


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_python_api(tmp_path, capsys):
    load(ROOT / "examples" / "python_api.py").main(tmp_path, steps=2)
    assert "top1" in capsys.readouterr().out


def test_a_recipe_of_ones_own_and_its_fine_tuning():
    name = f"{ROOT / 'examples' / 'own_recipe.py'}:mine"
    recipe = unveil.build(name, ratio=0.5, frames=4, crop=32)
    assert recipe.objective.masker.ratio == 0.5
    assert find(name.replace(":mine", ":finetune")).__name__ == "finetune"
    sys.modules.pop("own_recipe", None)


def test_the_demo_runs_whole(tmp_path, monkeypatch):
    """The demo's script from end to end, on few clips and with two steps of everything."""
    demo = load(ROOT / "examples" / "demo.py")
    builtin = demo.verbs.builtin
    monkeypatch.setattr(
        demo.verbs, "builtin", lambda name, out, **_: builtin(name, out=out, unlabelled=24, labelled=16, test=16)
    )
    for verb in ("pretrain", "train", "finetune"):
        original = getattr(unveil, verb)
        monkeypatch.setitem(vars(unveil), verb, lambda *a, _f=original, **k: _f(*a, **{"max_steps": 2, **k}))
    demo.main(tmp_path / "demo", pretrainings=2, seeds=1)
    assert {"report.html", "neighbours.html", "prediction.json", "results.json"} <= {
        path.name for path in (tmp_path / "demo").iterdir()
    }


def test_the_table_of_systems_is_true():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert load(ROOT / "docs" / "table.py").updated(text) == text
