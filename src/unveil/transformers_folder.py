"""A folder as transformers writes one (and the Hub holds): which network of ours it is, and what else its files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from unveil.errors import UserError

CONFIG, PREPROCESSOR, CARD = "config.json", "preprocessor_config.json", "README.md"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
#: Of a network that knows texts, either of these.
TOKENIZERS = ("tokenizer.json", "merges.txt")
#: All that is ever read of one.
FILES = (CONFIG, PREPROCESSOR, CARD, *WEIGHTS, *TOKENIZERS)

#: Their `model_type` → the system whose name map reads it.
SYSTEMS = {"vit": "vit", "vit_mae": "mae", "beit": "mae", "videomae": "videomae", "clip": "clip"}
EPS = 1e-6


class Folder(NamedTuple):
    """What a folder says.

    Attributes:
        weights: its file of tensors.
        system: whose name map reads it.
        hints: heads, which shapes do not tell.
        flags: of the recipe.
        classes: names in the order of the logits; empty where it names none; None of a mere file of weights.
        licence: what its card says, or None.
        notes: what is not quite the same here, as sentences.
    """

    weights: Path
    system: str
    hints: dict[str, int]
    flags: dict[str, Any]
    classes: list[str] | None
    licence: str | None
    notes: list[str]


def read_folder(folder: Path) -> Folder:
    """
    Args:
        folder: holds config.json and one of `WEIGHTS`.

    Raises:
        UserError: it does not, a file is damaged, or it is a network that has no counterpart here.
    """
    config = _json(folder / CONFIG)
    kind = config.get("model_type")
    if kind not in SYSTEMS:
        raise UserError(
            f"{folder / CONFIG}: model_type {kind!r} has no counterpart here; what can be read is {', '.join(SYSTEMS)}."
        )
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise UserError(f"{folder}: holds none of {', '.join(WEIGHTS)} (weights in several files are not read).")
    if config.get("hidden_act", "gelu") != "gelu":
        raise UserError(f"{folder / CONFIG}: hidden_act {config['hidden_act']!r}; the networks here have gelu.")
    system = SYSTEMS[kind]
    if kind == "beit" and not config.get("use_absolute_position_embeddings"):
        system = "beit"  # the others are networks of MAE's
    if kind == "clip":
        return _clip(folder, config, weights)
    pretraining = any("PreTraining" in str(name) for name in config.get("architectures") or [])
    hints = {"num_heads": _number(config, "num_attention_heads", 12, folder)}
    flags: dict[str, Any] = {}
    if kind == "videomae":
        flags = {
            "frames": _number(config, "num_frames", 16, folder),
            "crop": _number(config, "image_size", 224, folder),
        }
    if pretraining:
        hints["decoder_num_heads"] = _number(
            config, "decoder_num_attention_heads", 16 if kind == "vit_mae" else 6, folder
        )
        normalised = config.get("norm_pix_loss", kind == "videomae")
        flags["normalize"] = {"vit_mae": "patch", "videomae": "channel"}.get(kind) if normalised else None
        if kind == "vit_mae":
            flags["ratio"] = float(config.get("mask_ratio", 0.75))
    if config.get("problem_type") == "multi_label_classification":
        flags["multi_label"] = True
    notes = []
    if (eps := config.get("layer_norm_eps", 1e-12)) != EPS:
        notes.append(f"its norms add {eps:g} to a variance, those here {EPS:g}")
    flags |= _colours(folder)
    return Folder(weights, system, hints, flags, _classes(config), _licence(folder / CARD), notes)


def _colours(folder: Path) -> dict[str, Any]:
    flags = {}
    for name, flag in {"image_mean": "sample.mean", "image_std": "sample.std"}.items():
        values = _json(folder / PREPROCESSOR).get(name) if (folder / PREPROCESSOR).is_file() else None
        if isinstance(values, list) and values and all(isinstance(value, int | float) for value in values):
            flags[flag] = tuple(float(value) for value in values)
    return flags


def _clip(folder: Path, config: dict[str, Any], weights: Path) -> Folder:
    """Two towers, each with a configuration of its own, in which what is usual is left out."""
    parts = {name: config.get(f"{name}_config") or {} for name in ("vision", "text")}
    if not all(isinstance(part, dict) for part in parts.values()):
        raise UserError(f"{folder / CONFIG}: vision_config and text_config are no objects.")
    acts = {part.get("hidden_act", "quick_gelu") for part in parts.values()}
    if len(acts) > 1 or not acts <= {"gelu", "quick_gelu"}:
        raise UserError(
            f"{folder / CONFIG}: hidden_act {', '.join(sorted(map(str, acts)))}; both towers here have gelu or quick_gelu."
        )
    hints = {
        "num_heads": _number(parts["vision"], "num_attention_heads", 12, folder),
        "text_num_heads": _number(parts["text"], "num_attention_heads", 8, folder),
    }
    flags = {"act": acts.pop(), **_colours(folder)}
    if tokenizer := next((folder / name for name in TOKENIZERS if (folder / name).is_file()), None):
        flags["tokenizer"] = str(tokenizer)
    return Folder(weights, "clip", hints, flags, [], _licence(folder / CARD), [])


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(
            f"{file.parent}: has no {file.name}; a folder to import is one that transformers' save_pretrained wrote."
        )
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{file}: an object is expected, not a {type(found).__name__}.")
    return found


def _number(config: dict[str, Any], name: str, default: int, folder: Path) -> int:
    value = config.get(name, default)
    value = value[0] if isinstance(value, list) and value and len(set(value)) == 1 else value
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{folder / CONFIG}: {name} is {value!r}; a whole number is expected.")
    return value


def _classes(config: dict[str, Any]) -> list[str]:
    """The names, unless they are those that transformers makes up."""
    names = config.get("id2label")
    if not isinstance(names, dict) or set(names) != {str(i) for i in range(len(names))}:
        return []
    found = [str(names[str(i)]) for i in range(len(names))]
    made_up = [f"LABEL_{i}" for i in range(len(found))]
    return [] if found == made_up or len(set(found)) < len(found) else found


def _licence(card: Path) -> str | None:
    """`license: …` of the front matter."""
    if not card.is_file():
        return None
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    for line in lines[1:]:
        if line.strip() == "---":
            return None
        if line.startswith("license:"):
            return line.removeprefix("license:").strip().strip("'\"") or None
    return None
