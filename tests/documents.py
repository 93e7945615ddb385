"""The code blocks of README.md and docs/, and how each is run: in a folder of small real files, with small flags added.

What a page shows is run as it stands there; `SMALL`, `FILES` and `ONLY_PARSED` are all that is done to it. A block of a language
that is not known here, and a command that is not, are errors: nothing is passed over because it was not understood.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from markdown_it import MarkdownIt

import unveil
from unveil import cli, job, recipes, verbs
from unveil.flags import as_flag, recipe_flags

ROOT = Path(__file__).parents[1]
COMMANDS = ("unveil", "make", "python", "pip", "torchrun")
SHELLS = ("sh", "bash", "shell", "console")
#: Blocks that are no program: pictures of folders, what a command prints.
PLAIN = ("text", "csv", "diff")

#: Added to what trains, so that it takes a second; a recipe gets those that it has.
TINY: dict[str, Any] = {
    "size": "debug", "frames": 4, "crop": 32, "patch": 8, "max_steps": 2, "schedule.batch": 4, "loader.batch": 4,
    "loader.workers": 0, "sample.clips": 1, "sample.crops": 1, "points": 32, "group": 4, "neighbours": 3,
    "seconds": 0.16, "bins": 16, "audio_patch": 4, "fusion_layers": 1,
}  # fmt: skip
#: Folders of the pages that hold pictures.
PICTURES = {"photos/", "images/"}
#: The same for other verbs. A word that begins the command line → flags that are added to its end.
SMALL = {
    "evaluate": "--workers 0",
    "data builtin": "--unlabelled 4 --labelled 8 --test 8",
    "data check": "--workers 1",
    "data prepare": "--workers 1",
    "pretrain my.py:mine": "--max-steps 1 --schedule.batch 2 --loader.batch 2",  # the page's recipe has no flags of size
    # What the references' tiny checkpoints do not tell; a checkpoint of the published size needs none of them.
    "import mae_pretrain_vit_base.pth": "--num-heads 4 --decoder-num-heads 4 --crop 32",
    "import checkpoint.pth": "--num-heads 4 --crop 32 --frames 8",
    "import vit_b_16.pth": "--num-heads 4",
}
#: Tiny checkpoints in their authors' names: file on the page → the reference's state (tests/golden/), classes of the page.
CHECKPOINTS = {
    "mae_pretrain_vit_base.pth": ("mae-pretrain-norm", 0),
    "checkpoint.pth": ("videomae-finetune", 400),
    "vit_b_16.pth": ("vit-tiny_token_c64", 1000),
}
#: What a test cannot run: its flags are only held against the real ones.
ONLY_PARSED = {
    r"^unveil export .* --push |^unveil import hub:": "talks to a server",
    r"^torchrun\b|--devices? (?!1\b|cpu\b|auto\b)": "needs several processes or an accelerator",
    r"--logger (wandb|mlflow)": "needs a package or an account",
    r"^unveil import ViT-B-32\.pt": "needs a tokenizer of the checkpoint's forty ids, which there is not",
    r"--compile true": "compiling takes a minute",
}


@dataclass(frozen=True)
class Piece:
    """Something to run: a Python block, or one command line. `line` is where it stands on its page."""

    page: Path
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        shown = " ".join(self.text.split())[:60] if self.kind == "command" else self.kind
        return f"{self.page.relative_to(ROOT)}:{self.line} {shown}"


def pages() -> list[Path]:
    return [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "examples" / "README.md",
        *sorted(ROOT.glob("docs/**/*.md")),
    ]


def pieces(page: Path, text: str | None = None) -> Iterator[Piece]:
    """What there is to run on a page.

    Raises:
        ValueError: a block whose language is not known, or a command that is not; the text says what to do.
    """
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8") if text is None else text):
        if token.type not in ("fence", "code_block"):
            continue
        assert token.map is not None
        first = token.map[0] + (2 if token.type == "fence" else 1)
        language = token.info.strip().split(" ")[0] if token.type == "fence" else ""
        if language in ("python", "py"):
            yield Piece(page, first, "python", token.content)
        elif language in ("json", "yaml"):
            yield Piece(page, first, language, token.content)
        elif language in SHELLS or (
            not language and re.search(rf"^(\$ )?({'|'.join(COMMANDS)}) ", token.content, re.M)
        ):
            yield from _commands(page, first, token.content)
        elif language not in ("", *PLAIN):
            raise ValueError(
                f"{page}:{first}: a block in {language!r}, which nobody here runs. Call it text if it is no program, "
                "or teach tests/documents.py to run it."
            )


def _commands(page: Path, first: int, content: str) -> Iterator[Piece]:
    joined = re.sub(r"\\\n\s*", "", content)  # only the numbers of later lines suffer
    for number, line in enumerate(joined.splitlines(), first):
        line = line.strip().removeprefix("$ ")
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] not in COMMANDS:
            raise ValueError(
                f"{page}:{number}: {line!r} stands among commands and begins with none of {', '.join(COMMANDS)}. "
                "Put a # before what is no command, or teach tests/documents.py to run it."
            )
        yield Piece(page, number, "command", line)


def only_parsed(line: str) -> str | None:
    """Why a command line is not run, if it is not."""
    return next((why for pattern, why in ONLY_PARSED.items() if re.search(pattern, line)), None)


def run(piece: Piece) -> None:
    """Run a piece in the present folder; an error is that of what was run, with the page's line in its traceback."""
    if piece.kind == "json":
        json.loads(piece.text)
    elif piece.kind == "yaml":
        yaml.safe_load(piece.text)
    elif piece.kind == "python":
        _run_python(piece)
    else:
        _run_command(piece)


def _run_python(piece: Piece) -> None:
    if name := re.match(r"# (\w+\.py)\n", piece.text):
        Path(name[1]).write_text(piece.text, encoding="utf-8")
    smaller = {name: _smaller(name) for name in ("pretrain", "train", "finetune")}
    with mock.patch.multiple(unveil, create=True, **smaller):
        code = compile("\n" * (piece.line - 1) + piece.text, str(piece.page), "exec")
        exec(code, {"__name__": f"page_{piece.page.stem}"})


def _smaller(verb: str) -> Any:
    """A training verb with small flags; all others are the page's."""

    @functools.wraps(getattr(verbs, verb))
    def call(subject: Any, **given: Any) -> Any:
        _put_aside(given["out"])
        return getattr(verbs, verb)(subject, **(given | _tiny(verb, subject) | {"device": "cpu", "quiet": True}))

    return call


def _tiny(verb: str, subject: Any) -> dict[str, Any]:
    if verb == "finetune":
        function = recipes.find(job.finetuning_of(subject, {})[0])
    else:
        function = recipes.find(subject) if isinstance(subject, str) else subject
        if verb == "train":
            supervised = job.trained_of(function)
            function = recipes.find(supervised) if isinstance(supervised, str) else supervised
    own = recipe_flags(function)
    return {name: value for name, value in TINY.items() if name in own or "." in name or name == "max_steps"}


def _run_command(piece: Piece) -> None:
    words = shlex.split(piece.text, comments=True)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+(?: [\w-]+)*):", (ROOT / "Makefile").read_text(), re.M)
        known = {name for line in targets for name in line.split()}
        wrong = [word for word in words[1:] if "=" not in word and word not in known]
        assert not wrong, f"the Makefile has no {wrong[0]}"
    elif words[0] == "python":
        script = (ROOT / words[1]).read_text()
        wrong = [word for word in words[2:] if word.startswith("--") and f'"{word.partition("=")[0]}"' not in script]
        assert not wrong, f"{words[1]} has no flag {wrong[0]}"
    elif words[0] == "torchrun":
        parse(words[words.index("unveil") + 1 :])
    elif words[0] == "unveil":
        (parse if only_parsed(piece.text) else _run_verb)(words[1:])


def _put_aside(out: str) -> None:
    """A page's `--out` is new for its reader, but one of its commands may have been prepared for another."""
    if (target := Path(out)).is_dir():
        target.rename(target.with_name(f"{target.name}-as-it-was"))


def _run_verb(words: list[str]) -> None:
    for place, flag in enumerate(words):
        if flag == "--out":
            _put_aside(words[place + 1])
    if words[0] in cli.TRAINING:
        tiny = _tiny(words[0], next(word for word in words[1:] if not word.startswith("-")))
        if words[words.index("--data") + 1] in PICTURES:
            tiny.pop("frames", None)  # of recipes that take either, pictures are not to be made clips
        words = [*words, *(f"{as_flag(name)}={value}" for name, value in tiny.items()), "--device=cpu"]
    for beginning, more in SMALL.items():
        if " ".join(words).startswith(beginning):
            words = [*words, *more.split()]
    try:
        cli.run(words)
    except SystemExit as end:  # `data check` and `doctor` say by their status that something is bad: that is an answer
        if end.code not in (0, 1, None):
            raise


def parse(words: list[str]) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """Hold a command line against the real flags without carrying it out; returns how the verbs would have been called."""
    calls = []

    def note(name: str) -> Any:
        original = getattr(verbs, name)

        @functools.wraps(original)
        def verb(*args: Any, **flags: Any) -> None:
            inspect.signature(original).bind(*args, **flags)
            calls.append((name, args, flags))

        return verb

    with mock.patch.multiple(verbs, **{name: note(name) for name in verbs.__all__}):
        cli.run(words)
    return calls
