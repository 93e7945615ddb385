"""A published checkpoint → a run folder that predicts, embeds and fine-tunes like any other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unveil.errors import UserError

if TYPE_CHECKING:
    from unveil.run import Run
    from unveil.transformers_folder import Folder


def import_checkpoint(
    file: Path | str,
    system: str | None,
    out: Path,
    flags: Mapping[str, Any],
    hints: Mapping[str, Any],
    classes: str | None,
    licence: str | None,
    partial: bool = False,
    overwrite: bool = False,
) -> tuple[Run, list[str]]:
    """Write the run folder; returns the run, and what a person should know of it, as sentences.

    Args:
        file: the checkpoint; a folder of transformers'; or "hub:NAME", such a folder on the Hub.
        system: whose name map is used; a folder says so itself.
        out: folder that is there, held by this process, and empty.
        flags: of the recipe; see `weights.build`.
        hints: see `weights.convert`.
        classes: see `class_names`.
        licence: of the weights; the family's by default.
        partial: see `weights.build`.
        overwrite: replace a run that is in `out`, once the checkpoint is known to be good.

    Raises:
        UserError: the checkpoint, a flag, the names of the classes or the folder is wrong; then nothing is written.
    """
    import torch

    from unveil import weights
    from unveil.data import bpe
    from unveil.data.captions import keep
    from unveil.hub import PREFIX
    from unveil.run import load, new_info
    from unveil.storage import write_json
    from unveil.training.checkpoint import save_weights
    from unveil.training.guards import LOCK, clear

    is_run = (out / "run.json").is_file()
    if not (is_run and overwrite) and any(path.name != LOCK for path in out.iterdir()):
        what = "holds a run: use --overwrite to replace it" if is_run else "is not empty: empty it"
        raise UserError(f"--out {out} {what}, or name a new folder.")
    found = _foreign(file, system)
    source = str(file)
    start = source if source.startswith(PREFIX) else str(Path(file).resolve())
    file, system = found.weights, found.system
    flags, hints = found.flags | dict(flags), found.hints | dict(hints)
    converted = weights.convert(system, file, **hints, **flags)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # what the checkpoint does not hold is drawn
        recipe, report = weights.build(converted, partial, source, **flags)
    merged = {**converted.flags, **flags}
    names: list[str] = []
    begun_anew = any(name.startswith("head.") for name in [*report.fresh, *report.replaced])
    if "num_classes" in merged and not begun_anew:
        own = classes is None and len(found.classes or ()) == merged["num_classes"]
        names = list(found.classes or ()) if own else class_names(classes, merged["num_classes"])
    elif classes:
        raise UserError(f"--classes {classes}: this run has no trained classifier, so no classes to name.")
    text = None
    if recipe.data.text is not None and recipe.data.text.source:
        text = bpe.read(recipe.data.text.source)
        if text.vocabulary > recipe.data.text.vocabulary:
            raise UserError(
                f"--tokenizer {recipe.data.text.source}: has {text.vocabulary} ids, the checkpoint {recipe.data.text.vocabulary}."
            )
    if is_run:
        clear(out)
    about_text = {}
    if text is not None:
        about_text = {"tokenizer": keep(text, out, f"read from {Path(merged.pop('tokenizer')).name}")}
    save_weights(out / "weights.safetensors", recipe.objective.state_dict())
    if (
        licence is None and found.classes is not None
    ):  # a folder: of whomever, and not of those who published the system
        licence = f"{found.licence} ({source})" if found.licence else None
    elif licence is None:
        licence = getattr(weights.family(system), "LICENCE", None)
    info = new_info(
        "import",
        converted.recipe,
        merged,
        asked={"recipe": system, "flags": dict(flags), "data": [], "start": start},
        classes=names,
        multi_label=bool(merged.get("multi_label")),
        precision=recipe.precision,
        preprocessing=recipe.data.described(),
        files={"train": 0, "validation": 0, "bad": 0},
        steps=0,
        imported={"file": file.name, "sha256": _digest(file), "system": system},
        licence_of_start=licence or f"unknown: weights from the file {file.name}, ask whoever made it",
        **about_text,
    )
    write_json(out / "run.json", {**info, "status": "complete"})
    told = [f"{converted.recipe}, {', '.join(f'{name} {value}' for name, value in merged.items())}"]
    told += [*weights.deviations(converted, report), *found.notes]
    mean, std = ([round(value, 3) for value in values] for values in (recipe.data.mean, recipe.data.std))
    if mean:
        told.append(
            f"colours are normalised by mean {mean} and deviation {std}; --sample.mean and --sample.std say otherwise"
        )
    if names and classes is None and names != found.classes:
        told.append(
            f"the file does not name its {len(names)} classes: they are called {names[0]} … {names[-1]}; --classes names them"
        )
    if recipe.data.text is not None and text is None:
        told.append(
            "there is no tokenizer, and without it no text can be read: --tokenizer FILE (tokenizer.json or CLIP's merges)"
        )
    if begun_anew:
        told.append("there is no trained classifier: fine-tune the run before it predicts")
    told.append(f"licence of the weights: {info['licence_of_start']}")
    return load(out), told


def _foreign(file: Path | str, system: str | None) -> Folder:
    """What is read: a file of a system that is named, or a folder, here or on the Hub, which names it.

    Raises:
        UserError: neither, or the folder is of another system.
    """
    from unveil.hub import PREFIX, pull
    from unveil.transformers_folder import FILES, Folder, read_folder

    place = pull(file, FILES) if isinstance(file, str) and file.startswith(PREFIX) else Path(file)
    if not place.is_dir():
        if system is None and place.exists():
            raise UserError(f"{place}: --recipe has to say what the file is of: mae, mae_st, videomae, audiomae, vit …")
        return Folder(place, system or "", {}, {}, None, None, [])
    found = read_folder(place)
    if system is None:
        return found
    # An encoder alone has the names of a ViT whichever of the two it is of.
    if found.system != system and {found.system, system} != {"vit", "mae"}:
        raise UserError(f"--recipe {system}: {file} is of {found.system}; leave the flag out.")
    return found._replace(system=system)


def class_names(source: str | None, num: int) -> list[str]:
    """Names of classes in the order of the logits.

    Args:
        source: "imagenet" or "kinetics400", in their usual (alphabetical) order; a text file with a name a line, or a .json
            with a list or with {"0": name}; None for numbers.
        num: how many there have to be.

    Raises:
        UserError: there are not as many, two are the same, or the file cannot be read.
    """
    if source is None:
        return [f"{i:0{len(str(num - 1))}d}" for i in range(num)]
    names = _known(source) or _read_names(Path(source))
    if len(names) != num:
        raise UserError(f"--classes {source}: {len(names)} names for the checkpoint's {num} classes.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice and source in KNOWN:  # ImageNet has two cranes and two maillots
        names = [f"{name} ({i})" if name in twice else name for i, name in enumerate(names)]
    elif twice:
        raise UserError(f"--classes {source}: two classes have the name {twice[0]!r}.")
    return names


KNOWN = ("imagenet", "kinetics400")


def _known(source: str) -> list[str]:
    """The names that torchvision keeps beside its own weights."""
    if source not in KNOWN:
        return []
    from torchvision.models import ViT_B_16_Weights
    from torchvision.models.video import R3D_18_Weights

    return list((ViT_B_16_Weights if source == "imagenet" else R3D_18_Weights).DEFAULT.meta["categories"])


def _read_names(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"--classes {path}: no such file, and none of {', '.join(KNOWN)}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix != ".json":
            return [line.strip() for line in text.splitlines() if line.strip()]
        found = json.loads(text)
    except ValueError as error:
        raise UserError(f"--classes {path} cannot be read: {error}") from error
    if isinstance(found, dict) and set(found) == {str(i) for i in range(len(found))}:
        found = [found[str(i)] for i in range(len(found))]
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise UserError(f'--classes {path}: a list of names, or {{"0": name, "1": name …}}, is expected.')
    return found


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
