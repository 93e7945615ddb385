"""CLIP's checkpoints under all their names: OpenAI's archives, OpenCLIP's, transformers'."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unveil
from unveil import weights
from unveil.data import bpe
from unveil.errors import UserError
from unveil.state_dict import read_state_dict

TEXTS = ["a red square", "a green square"]


def openai(kind: str = "vit", seed: int = 0) -> dict[str, Tensor]:
    """A state in OpenAI's names: width 64 and 32, one block each, patches of 8 of 32 pixels."""
    generator = torch.Generator().manual_seed(seed)

    def make(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) / 8

    state = {
        "positional_embedding": make(8, 64),
        "text_projection": make(64, 48),
        "logit_scale": torch.tensor(2.0),
        "token_embedding.weight": make(300, 64),
        "ln_final.weight": make(64),
        "ln_final.bias": make(64),
    }

    def block(prefix: str, width: int) -> None:
        for name, shape in {
            "attn.in_proj_weight": (3 * width, width),
            "attn.in_proj_bias": (3 * width,),
            "attn.out_proj.weight": (width, width),
            "attn.out_proj.bias": (width,),
            "ln_1.weight": (width,),
            "ln_1.bias": (width,),
            "mlp.c_fc.weight": (4 * width, width),
            "mlp.c_fc.bias": (4 * width,),
            "mlp.c_proj.weight": (width, 4 * width),
            "mlp.c_proj.bias": (width,),
            "ln_2.weight": (width,),
            "ln_2.bias": (width,),
        }.items():
            state[f"{prefix}.{name}"] = make(*shape)

    block("transformer.resblocks.0", 64)
    block("visual.transformer.resblocks.0", 128)
    state |= {
        "visual.class_embedding": make(128),
        "visual.positional_embedding": make(17, 128),
        "visual.proj": make(128, 48),
        "visual.conv1.weight": make(128, 3, 8, 8),
        "visual.ln_pre.weight": make(128),
        "visual.ln_pre.bias": make(128),
        "visual.ln_post.weight": make(128),
        "visual.ln_post.bias": make(128),
    }
    return state


def features(objective: Any) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 3, 32, 32, generator=generator)
    text = torch.randint(1, 300, (2, 8), generator=generator)
    with torch.no_grad():
        return objective.eval().features("image", image), objective.features("text", text)


def load(state: dict[str, Tensor] | Path, **hints: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return weights.load("clip", state, **hints)


def same(one: Any, other: Any) -> None:
    for a, b in zip(features(one.objective), features(other.objective), strict=True):
        torch.testing.assert_close(a, b)


def test_sizes_come_from_the_shapes() -> None:
    with pytest.warns(UserWarning, match="taken to be quick_gelu"):
        recipe = weights.load("clip", openai())
    image, text = recipe.objective.get_submodule("image"), recipe.objective.get_submodule("text")
    assert (image.width, image.depth, image.get_submodule("blocks.0.attn").heads) == (128, 1, 2)  # one for 64
    assert (text.width, text.context, text.get_submodule("blocks.0.attn").heads) == (64, 8, 1)
    found = weights.convert("clip", openai(), num_heads=4, text_num_heads=2, act="gelu")
    assert found.flags == {
        "size": "128x1x4", "text_size": "64x1x2", "width": 48, "patch": 8, "crop": 32, "context": 8, "vocabulary": 300, "act": "gelu",
    }  # fmt: skip
    assert not found.unused


def test_open_clips_names() -> None:
    """Its older files are OpenAI's; newer ones have the text's tower under a name of its own. The activation is a hint."""
    state = openai()
    newer = {
        name if name.startswith(("visual.", "logit")) else f"text.{name}": value for name, value in state.items()
    } | {"text.attn_mask": torch.zeros(8, 8)}
    same(load(newer), load(state))
    with pytest.raises(AssertionError):
        same(load(state, act="gelu"), load(state))


def test_what_archives_keep_beside() -> None:
    state = openai()
    more = {"input_resolution": torch.tensor(32), "transformer.resblocks.0.attn_mask": torch.zeros(8, 8)}
    same(load({**state, **more}), load(state))
    with pytest.raises(UserError, match=r"left over: visual\.strange"):
        load({**state, "visual.strange": torch.zeros(3)})


def test_other_systems_are_named() -> None:
    with pytest.raises(UserError, match="not the weights of clip"):
        load({"cls_token": torch.zeros(1, 1, 8)})


class Held(nn.Module):
    """Parameters under any names."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        for name, value in state.items():
            head, _, rest = name.partition(".")
            if not rest:
                self.register_parameter(head, nn.Parameter(value, requires_grad=False))
        for head in dict.fromkeys(name.partition(".")[0] for name in state if "." in name):
            inner = {name.partition(".")[2]: v for name, v in state.items() if name.startswith(f"{head}.")}
            setattr(self, f"n{head}" if head.isdigit() else head, Held(inner))

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_an_archive_is_imported_and_reads_texts(tmp_path: Path) -> None:
    """As OpenAI publishes them: TorchScript, in half precision; with a tokenizer beside it a run that knows texts."""
    state = {name: value.half() if value.ndim else value for name, value in openai().items()}
    named = {name.replace("resblocks.0.", "resblocks.n0."): value for name, value in state.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Held(named)), tmp_path / "ViT.pt")
    read = {name.replace(".n0.", ".0."): value for name, value in read_state_dict(tmp_path / "ViT.pt").items()}
    assert read.keys() == state.keys()
    same(load(read), load({name: value.float() for name, value in state.items()}))
    torch.save(read, tmp_path / "state.pt")
    (tmp_path / "tokenizer.json").write_text(bpe.train(TEXTS, 300).tokenizer.to_str())
    run = unveil.import_(
        tmp_path / "state.pt",
        recipe="clip",
        out=tmp_path / "run",
        tokenizer=str(tmp_path / "tokenizer.json"),
        quiet=True,
    )
    assert "tokenizer" not in run.info["flags"]
    assert run.info["licence_of_start"] == "MIT (OpenAI)"
    assert run.recipe.data.text is not None
    assert run.recipe.data.text.encode(["a red square"]).shape == (1, 8)
    large = bpe.train([f"{i} {i * i} {i}" for i in range(3000)] * 2, 600)
    (tmp_path / "tokenizer.json").write_text(large.tokenizer.to_str())
    with pytest.raises(UserError, match="has 600 ids, the checkpoint 300"):
        unveil.import_(
            tmp_path / "state.pt",
            recipe="clip",
            out=tmp_path / "b",
            tokenizer=str(tmp_path / "tokenizer.json"),
            quiet=True,
        )
    assert not (tmp_path / "b" / "run.json").exists()
    with pytest.raises(UserError, match="no tokenizer"):
        without = unveil.import_(tmp_path / "state.pt", recipe="clip", out=tmp_path / "c", quiet=True)
        assert without.recipe.data.text is not None
        without.recipe.data.text.encode(["x"])
