"""The command line. Its flags are made from the signatures of the verbs and of the recipes; nothing is declared twice.

Only the verb that is asked for is imported, so that `unveil --help` answers at once.
"""

from __future__ import annotations

import dataclasses
import inspect
import io
import itertools
import sys
import typing
from argparse import SUPPRESS
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from unveil.errors import NO_RIGHT, NO_ROOM, UserError

TRAINING = ("pretrain", "finetune", "train")

SUMMARY = """\
unveil VERB …                                learn from unlabelled signals; then recognise, embed, search

  pretrain RECIPE --data DIR --out RUN       learn from files without labels
  finetune RUN    --data DIR --out RUN       teach a pre-trained run to tell classes apart
  train RECIPE    --data DIR --out RUN       learn from labels, from scratch
  evaluate RUN    --data DIR [--by knn]      top-1/5, per class, confusion matrix; probes; zero-shot, retrieval
  predict RUN     FILE …                     likeliest classes; one row per window of a long video
  embed RUN       --data DIR --out INDEX     embeddings as parquet
  search INDEX    FILE or "TEXT"             what is most like a file, or fits a text
  report RUN                                 one HTML page about a run
  import FILE --recipe NAME --out RUN        a published checkpoint, or hub:NAME, as a run
  export RUN --format onnx                   its network for other programs: torch, onnx, huggingface, safetensors
  recipes [NAME]                             the systems; one of them in full
  data check DIR                             decode every file once; what is bad, copied, missing
  data prepare DIR --out DIR2                smaller files with key frames close together, for fast training
  data builtin NAME --out DIR                small data made here
  doctor [RUN]                               what this machine offers; why a run's loss became NaN

unveil VERB --help          the verb's flags;    unveil pretrain RECIPE --help    and the recipe's"""


class _Parser:
    """jsonargparse's parser with flags from signatures, dashes or underscores, and errors that name what was meant."""

    def __init__(self, title: str, text: str):
        from jsonargparse import ActionConfigFile, ArgumentParser

        self.parser = ArgumentParser(prog=title, description=text, exit_on_error=False)
        self.parser.add_argument("--config", action=ActionConfigFile, help="YAML file with the same flags")
        self.names: set[str] = {"config", "help", "print_config"}
        self.repeated: set[str] = set()

    def positional(self, name: str, text: str, many: bool = False, optional: bool = False) -> None:
        nargs: dict[str, Any] = {"nargs": "+"} if many else {"nargs": "?"} if optional else {}
        self.parser.add_argument(name, help=text, **nargs)

    def flag(self, name: str, hint: Any, default: Any, text: str, required: bool = False) -> None:
        if name in self.names:
            return
        self.names.add(name)
        more: dict[str, Any] = {}
        if hint is bool and default is False:
            more = {"action": "store_true"}
        elif "Sequence" in str(hint) or "Paths" in str(hint):
            self.repeated.add(name)
            more = {"type": list[str], "default": list(default) if default else (None if default is None else [])}
        else:
            plain = [part for part in typing.get_args(hint) if part is not type(None)]
            if any(getattr(part, "__name__", "") == "Path" for part in plain):
                hint = str | None
            more = {"type": hint, "default": default}
        if required:
            more.pop("default", None)
            more["required"] = True
        self.parser.add_argument(f"--{name.replace('_', '-')}", help=text or name, **more)

    def parse(self, argv: Sequence[str]) -> dict[str, Any]:
        from unveil.flags import as_flag, nearest

        words = []
        for word in argv:
            if word.startswith("--") and len(word) > 2:
                name, mark, value = word[2:].partition("=")
                name = name.replace("-", "_")
                if name.rstrip("+") not in self.names:
                    raise UserError(
                        f"{as_flag(name)} is not a flag of {self.parser.prog}."
                        f"{nearest(as_flag(name), map(as_flag, self.names))} All flags: {self.parser.prog} --help"
                    )
                if name in self.repeated:
                    name += "+"
                word = as_flag(name) + mark + value
            words.append(word)
        from argparse import ArgumentError

        try:
            parsed = self.parser.parse_args(words)
        except ArgumentError as error:
            text = str(error).strip()
            raise UserError(f"{text}\nAll flags: {self.parser.prog} --help") from error
        found = {name.replace("-", "_"): value for name, value in _flatten(parsed.as_dict())}
        return {name: value for name, value in found.items() if name not in ("config", "print_config")}


def _flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat = []
    for name, value in values.items():
        if isinstance(value, dict):
            flat += _flatten(value, f"{prefix}{name}.")
        else:
            flat.append((prefix + name, value))
    return flat


def _declare(parser: _Parser, verb: Callable[..., Any]) -> tuple[list[str], str | None]:
    """Flags and positionals of a verb; returns the names of its positionals, and of the one that takes several."""
    from unveil.flags import describe

    text = describe(verb)
    positionals, many = [], None
    for name, parameter in inspect.signature(verb).parameters.items():
        about = text.get(name, "")
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            many = name
            parser.positional(name, about, many=True)
        elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            positionals.append(name)
            parser.positional(name, about, optional=parameter.default is not parameter.empty)
        else:
            required = parameter.default is parameter.empty
            hint = _hint(verb, parameter.annotation)
            parser.flag(name, hint, None if required else parameter.default, about, required)
    return positionals, many


def _hint(owner: Any, annotation: Any) -> Any:
    """The type behind an annotation; verbs annotate with names that only a type checker imports."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, {**vars(sys.modules[owner.__module__]), **vars(typing)})
    except NameError:
        return str


def _first_positional(argv: Sequence[str]) -> str | None:
    """The recipe or run: the first word that is neither a flag nor a flag's value."""
    expects_value = False
    for word in argv:
        if word.startswith("-"):
            expects_value = "=" not in word and word not in ("--overwrite", "--quiet", "--partial", "-h", "--help")
        elif expects_value:
            expects_value = False
        else:
            return word
    return None


def _training(verb_name: str, argv: list[str]) -> None:
    from unveil import job, recipes, verbs
    from unveil.flags import describe

    verb = getattr(verbs, verb_name)
    parser = _Parser(f"unveil {verb_name}", inspect.getdoc(verb).split("\n")[0])  # type: ignore[union-attr]
    positionals, _ = _declare(parser, verb)
    text = describe(job.Training)
    for item in dataclasses.fields(job.Training):
        parser.flag(item.name, _hint(job.Training, item.type), item.default, text[item.name])
    subject = _first_positional(argv)
    if subject is None and not ({"-h", "--help"} & set(argv)):
        what = "a run folder" if verb_name == "finetune" else f"a recipe: {', '.join(recipes.names())}"
        raise UserError(f"unveil {verb_name} needs {what}. For example: unveil {verb_name} {EXAMPLES[verb_name]}")
    if subject is not None:
        if verb_name == "finetune":
            function = recipes.find(job.finetuning_of(subject, {})[0])
        else:
            function = recipes.find(subject)
            if verb_name == "train":
                function = _function(job.trained_of(function))
        _declare_recipe(parser, function)
    given = parser.parse(argv)
    subject = given.pop(positionals[0])
    verb(subject, **given)


def _import(argv: list[str]) -> None:
    """`unveil import`: a checkpoint may be of a system's pre-training or of its fine-tuning, so both have their flags."""
    from unveil import job, recipes, verbs, weights

    parser = _Parser("unveil import", inspect.getdoc(verbs.import_).split("\n")[0])  # type: ignore[union-attr]
    positionals, _ = _declare(parser, verbs.import_)
    system = next((word for flag, word in itertools.pairwise(argv) if flag == "--recipe"), None)
    system = next((word.partition("=")[2] for word in argv if word.startswith("--recipe=")), system)
    if system is None and (subject := _first_positional(argv)) and Path(subject).is_dir():
        from unveil.transformers_folder import read_folder

        system = read_folder(Path(subject)).system
    if system in weights.families():
        function = recipes.find(system)
        _declare_recipe(parser, function)
        supervised = _function(job.trained_of(function))
        if supervised is not function:
            _declare_recipe(parser, supervised)
    given = parser.parse(argv)
    verbs.import_(given.pop(positionals[0]), **given)


def _declare_recipe(parser: _Parser, function: Callable[..., Any]) -> None:
    """A recipe's parameters and the fields of what it returns.

    Their defaults are left out of the parse: a flag that was not given must not hide a preset or an inherited value,
    and one that was given as null must not pass for one that was not.
    """
    from unveil.flags import field_flags, recipe_flags

    for flag in {**field_flags(), **recipe_flags(function)}.values():
        known = flag.default not in (None, inspect.Parameter.empty)
        parser.flag(flag.name, flag.type, SUPPRESS, f"{flag.help} (default: {flag.default})" if known else flag.help)


def flags_for(title: str, function: Callable[..., Any], argv: Sequence[str]) -> dict[str, Any]:
    """The flags of a recipe on a command line that has nothing else but `--preset`."""
    parser = _Parser(title, "")
    parser.flag("preset", str | None, SUPPRESS, "a named set of flags")
    _declare_recipe(parser, function)
    return parser.parse(argv)


def _function(recipe: Any) -> Callable[..., Any]:
    from unveil import recipes

    return recipes.find(recipe) if isinstance(recipe, str) else recipe


EXAMPLES = {
    "pretrain": "videomae --data clips/ --out runs/a",
    "finetune": "runs/a --data labelled/ --out runs/b",
    "train": "vit --data labelled/ --out runs/scratch",
}


def _plain(verb_name: str, verb: Callable[..., Any], argv: list[str]) -> Any:
    parser = _Parser(f"unveil {verb_name}", inspect.getdoc(verb).split("\n")[0])  # type: ignore[union-attr]
    positionals, many = _declare(parser, verb)
    given = parser.parse(argv)
    arguments = [given.pop(name) for name in positionals] + list(given.pop(many) if many else [])
    return verb(*arguments, **given)


def _data(argv: list[str]) -> None:
    """`unveil data …`; where some files are bad, the status is 1."""
    from unveil import verbs
    from unveil.flags import nearest

    known = ("check", "prepare", "builtin")
    if not argv or argv[0] not in known:
        near = nearest(argv[0], known) if argv else ""
        raise UserError(f"unveil data: use {', '.join(f'`unveil data {name}`' for name in known)}.{near}")
    result = _plain(f"data {argv[0]}", getattr(verbs, argv[0]), argv[1:])
    if result is not None and result.bad:
        sys.exit(1)


def run(argv: list[str]) -> None:
    """Carry out a command line.

    Raises:
        UserError: something the user can mend.
    """
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(SUMMARY)
        return
    if argv[0] == "--version":
        from unveil import __version__

        print(f"unveil {__version__}")
        return
    verb, rest = argv[0], argv[1:]
    if verb in TRAINING:
        _training(verb, rest)
    elif verb in ("evaluate", "predict", "embed", "search", "report", "export"):
        from unveil import verbs

        _plain(verb, getattr(verbs, verb), rest)
    elif verb == "import":
        _import(rest)
    elif verb == "recipes":
        from unveil.catalogue import recipes

        recipes(rest)
    elif verb == "doctor":
        from unveil.doctor import doctor

        _plain("doctor", doctor, rest)
    elif verb == "data":
        _data(rest)
    else:
        from unveil.flags import nearest

        known = (
            *TRAINING,
            "evaluate",
            "predict",
            "embed",
            "search",
            "report",
            "import",
            "export",
            "recipes",
            "data",
            "doctor",
        )
        raise UserError(f"unveil {verb}: no such verb.{nearest(verb, known)} All verbs: unveil --help")


def main() -> NoReturn:
    """The entry point of the `unveil` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks must not end a run
            stream.reconfigure(errors="backslashreplace")
    try:
        run(sys.argv[1:])
    except UserError as error:
        print(f"unveil: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("unveil: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `unveil … | head`
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.errno not in NO_ROOM | NO_RIGHT:
            raise
        todo = "Free some space." if error.errno in NO_ROOM else "Allow it, or name another place."
        print(f"unveil: {error.filename or 'a file'}: {error.strerror}. {todo}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)


if __name__ == "__main__":
    main()
