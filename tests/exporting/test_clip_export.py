"""CLIP as transformers' `CLIPModel`, with its tokenizer; and back."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from exported import batch_of
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "serve"))
from serving_runs import make_run

import unveil
from unveil.data import bpe
from unveil.data.captions import keep
from unveil.errors import UserError
from unveil.run import Run, load
from unveil.storage import write_json

transformers = pytest.importorskip("transformers")

TEXTS = ["a red square", "all of it is green, or nearly", "blue"]
FLAGS = {"size": "debug", "crop": 32, "patch": 8, "context": 12, "vocabulary": 270}


def run_of(folder: Path, recipe: str = "clip", words: bool = True, **flags: Any) -> Run:
    run = make_run(folder, recipe, FLAGS | flags)
    generator = torch.Generator().manual_seed(1)
    state = {
        name: value + 0.1 * torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in run.objective.state_dict().items()
    }
    save_file(state, folder / "weights.safetensors")
    if words:
        kept = keep(bpe.train(TEXTS * 2, 270), folder, "trained")
        write_json(folder / "run.json", {**run.info, "tokenizer": kept})
    return load(folder, "cpu")


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_transformers_answers_as_the_run_does(act: str, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", act=act)
    folder = unveil.export(run, format="huggingface", quiet=True)
    model: Any = transformers.CLIPModel.from_pretrained(folder).eval()
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    given = tokenizer(TEXTS, padding="max_length", truncation=True, return_tensors="pt")
    words: Any = run.recipe.data.text
    assert torch.equal(given.input_ids, words.encode(TEXTS))
    objective: Any = run.objective
    x = batch_of(run, 3)
    with torch.no_grad():
        theirs = model(input_ids=given.input_ids, pixel_values=x)
        image, text = objective.embed("image", x), objective.embed("text", given.input_ids)
        ours = objective.logit_scale.exp() * image @ text.T
    torch.testing.assert_close(theirs.logits_per_image, ours, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(theirs.image_embeds, image, rtol=1e-4, atol=1e-5)


def test_round_trip(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", act="gelu", **{"sample.std": (0.2, 0.3, 0.25)})
    folder = unveil.export(run, format="huggingface", quiet=True)
    back = unveil.import_(folder, out=tmp_path / "back", quiet=True)
    assert back.info["flags"]["act"] == "gelu"
    assert back.recipe.data.std == (0.2, 0.3, 0.25)
    x, text = batch_of(run), torch.randint(1, 260, (5, 12), generator=torch.Generator().manual_seed(0))
    batch = {"image": x, "text": text, "seed": torch.arange(5)}
    with torch.no_grad():
        torch.testing.assert_close(back.objective(batch)["loss"], run.objective(batch)["loss"])
    ours, theirs = (opened.recipe.data.text for opened in (run, back))
    assert ours is not None
    assert theirs is not None
    assert torch.equal(theirs.encode(TEXTS), ours.encode(TEXTS))


def test_without_a_tokenizer(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", words=False)
    folder = unveil.export(run, format="huggingface", quiet=True)
    assert not (folder / "tokenizer.json").exists()
    assert json.loads((folder / "config.json").read_text())["text_config"]["eos_token_id"] == 269


def test_what_their_class_cannot_be(tmp_path: Path) -> None:
    for recipe, flags, part, said in (
        ("flip", {}, "whole", "its text tower is not causal"),
        ("clip", {"size": "RN1,1,1,1", "text_size": "debug"}, "whole", "its image tower is none"),
        ("clip", {}, "encoder", "only the whole"),
    ):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        own = {"patch": None} if "RN" in str(flags) else {}
        run = run_of(tmp_path / "run", recipe, words=False, **{**flags, **own})
        with pytest.raises(UserError, match=said):
            unveil.export(run, format="huggingface", part=part, quiet=True)  # type: ignore[arg-type]


def test_configurations_that_differ_are_refused(tmp_path: Path) -> None:
    folder = unveil.export(run_of(tmp_path / "run"), format="huggingface", quiet=True)
    config = json.loads((folder / "config.json").read_text())
    for change, said in (
        ({"vision_config": {**config["vision_config"], "hidden_act": "relu"}}, "hidden_act"),
        ({"text_config": [1]}, "are no objects"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(UserError, match=said):
            unveil.import_(folder, out=tmp_path / "back", quiet=True)


@pytest.mark.parametrize("format", ["torch", "safetensors"])
def test_other_formats_give_the_shared_space(format: Any, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    file = unveil.export(run, format=format, quiet=True)
    assert file.is_file()
    if format == "torch":
        program = torch.export.load(file).module()
        x = batch_of(run, 3)
        with torch.no_grad():
            torch.testing.assert_close(program(x), run.objective.features("image", x), rtol=1e-4, atol=1e-4)  # type: ignore[operator]
