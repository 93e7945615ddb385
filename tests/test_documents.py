"""What README.md and docs/ show is run; what cannot be run here has at least flags that exist."""

import ast
import inspect
import shutil
import sys
import wave
from pathlib import Path

import pytest
import torch

import documents
import unveil
from unveil import catalogue, cli, recipes, verbs
from unveil.errors import UserError
from unveil.recipes import mavil

sys.path.insert(0, str(Path(__file__).parent / "golden"))
sys.path.insert(0, str(Path(__file__).parent / "data"))
from reference import read, state_of
from sounds import write_clip

#: Flags of what hears.
OF_SOUND = ("seconds", "bins", "audio_patch", "fusion_layers")
PIECES = [piece for page in documents.pages() for piece in documents.pieces(page)]
README = documents.ROOT / "README.md"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the names that the pages use are there: clips/, labelled/, runs/a, runs/b, index/, clip.mp4 …"""
    root = tmp_path_factory.mktemp("pages")
    verbs.builtin("moving-digits", out=root / "made", unlabelled=6, labelled=16, test=8)
    made = root / "made"
    for name, source in {
        **dict.fromkeys(("clips", "films", "more", "folder", "a", "b"), "unlabelled"),
        **dict.fromkeys(("labelled", "train"), "labelled"),
        "test": "test",
    }.items():
        shutil.copytree(made / source, root / name)
    clip = min((made / "test").rglob("*.mp4"))
    for name in ("clip.mp4", "long.mkv", "query.mp4"):
        shutil.copy(clip, root / name)
    write_pictures(root / "photos")
    write_pairs(root)
    for name in ("scans", "labelled-scans", "test-scans"):
        write_clouds(root / name)
    write_sounds(root / "sounds")
    shutil.copy(root / "sounds" / "0.wav", root / "bark.wav")
    for number in range(4):
        write_clip(root / "clips" / f"heard-{number}.mp4", [0.2 * number], [0.2 * number], seconds=1.0)
    for name, (reference, classes) in documents.CHECKPOINTS.items():
        state = state_of(read(reference))
        if classes:
            for tensor in ("head.weight", "head.bias"):
                state[tensor] = torch.zeros(classes, *state[tensor].shape[1:])
        torch.save({"model": state}, root / name)
    verbs.export(imported_vit(root), format="huggingface", out=root / "from-transformers", quiet=True)
    write_own_recipe(root)
    clouds = ("points", "group", "neighbours")
    tiny = {name: value for name, value in documents.TINY.items() if name not in (*clouds, *OF_SOUND)}
    tiny |= {"device": "cpu", "quiet": True}
    of_clouds = {**tiny, **{name: documents.TINY[name] for name in clouds}}
    of_clouds = {name: value for name, value in of_clouds.items() if name not in ("frames", "crop", "patch")}
    run = verbs.pretrain("videomae", data=root / "clips", out=root / "runs" / "a", **tiny)
    verbs.finetune(run.path, data=root / "labelled", out=root / "runs" / "b", **tiny)
    verbs.pretrain("omnimae", data=[root / "photos", root / "clips"], out=root / "runs" / "omnimae", **tiny)
    verbs.embed(run.path, data=root / "clips", out=root / "index", device="cpu", quiet=True)
    heard = {**tiny, **{name: documents.TINY[name] for name in OF_SOUND}}
    verbs.pretrain("avmae", data=root / "clips", out=root / "runs" / "avmae", **heard)
    first = verbs.pretrain("mavil", data=root / "clips", out=root / "runs" / "mavil1", **heard)
    decided = {name: value for name, value in heard.items() if name not in mavil.DECIDES}
    second = verbs.pretrain(
        "mavil", data=root / "clips", teacher=str(first.path), out=root / "runs" / "mavil2", **decided
    )
    verbs.embed(second.path, data=root / "clips", use="video", out=root / "heard", device="cpu", quiet=True)
    stills = {name: value for name, value in tiny.items() if name != "frames"}
    pairs = verbs.pretrain("flip", data=root / "pairs", out=root / "runs" / "flip", **stills)
    verbs.embed(pairs.path, data=root / "photos", out=root / "pictures", device="cpu", quiet=True)
    points = verbs.pretrain("mae3d", data=root / "scans", out=root / "runs" / "points", **of_clouds)
    of_clouds.pop("group")
    verbs.finetune(points.path, data=root / "labelled-scans", out=root / "runs" / "points-ft", **of_clouds)
    of_tokenizer = {name: value for name, value in tiny.items() if name not in ("frames", "patch")} | {"max_steps": 0}
    verbs.train("dvae", data=root / "photos", out=root / "runs" / "tokenizer", **of_tokenizer)
    lost = {**tiny, "optimizer.lr": 1e30, "max_steps": 6, "schedule.warmup": 0}
    with pytest.raises(UserError, match="the loss is nan"):
        verbs.pretrain("videomae", data=root / "clips", out=root / "lost", **lost)
    return root


def imported_vit(root: Path) -> Path:
    return verbs.import_(root / "vit_b_16.pth", recipe="vit", out=root / "tiny-vit", num_heads=4, quiet=True).path


def write_pictures(folder: Path) -> None:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(4):
        Image.effect_mandelbrot((48, 40), (-2, -1.5, 1, 1.5), 10 + number).convert("RGB").save(folder / f"{number}.png")


def write_pairs(root: Path) -> None:
    """pairs/ with captions.csv, images/ with a folder for each class, names.txt."""
    write_pictures(root / "pairs")
    lines = [f"{number}.png,picture {number} of a fractal" for number in range(4) for _ in range(2)]
    (root / "pairs" / "captions.csv").write_text("\n".join(["image,caption", *lines]) + "\n")
    for name in ("cats", "dogs"):
        write_pictures(root / "images" / name)
    (root / "names.txt").write_text("a cat\na dog\n")


def write_clouds(folder: Path) -> None:
    for name in ("ball", "stick"):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            lines = torch.randn(40, 3, generator=torch.Generator().manual_seed(number)) * torch.tensor(
                [1.0, 1, len(name)]
            )
            (folder / name / f"{number}.xyz").write_text("".join(f"{x} {y} {z}\n" for x, y, z in lines.tolist()))


def write_sounds(folder: Path) -> None:
    folder.mkdir()
    for number in range(4):
        tone = torch.sin(torch.arange(4000) * (0.1 + 0.1 * number)).mul(20000).short()
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(tone.numpy().tobytes())


def write_own_recipe(folder: Path) -> None:
    """my.py, which several pages use, as the page shows it that defines it."""
    (block,) = [piece for piece in PIECES if piece.text.startswith("# my.py\n")]
    (folder / "my.py").write_text(block.text, encoding="utf-8")


@pytest.mark.parametrize("piece", PIECES, ids=str)
def test_runs(piece: documents.Piece, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    shutil.copytree(prepared, here)
    if piece.text.startswith("unveil doctor runs/a"):
        shutil.rmtree(here / "runs" / "a")
        (here / "lost").rename(here / "runs" / "a")
    monkeypatch.chdir(here)
    path, modules = list(sys.path), set(sys.modules)
    try:
        documents.run(piece)
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(here)):
                del sys.modules[name]


@pytest.mark.parametrize("recipe", recipes.names())
def test_the_commands_of_a_recipe_s_docstring(recipe: str, prepared: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for line in catalogue.entry(recipe).commands:
        words = line.split("#")[0].split()[1:]
        if words[0] == "finetune":  # the run that the command before it makes
            own = prepared / "runs" / recipe
            shutil.copytree(own if own.is_dir() else prepared / "runs" / "a", tmp_path / words[1], dirs_exist_ok=True)
        assert documents.parse(words)


def test_the_example_of_the_package_s_docstring(prepared: Path, tmp_path: Path, monkeypatch) -> None:
    shutil.copytree(prepared, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    assert unveil.__doc__
    (block,) = [
        token for token in documents.MarkdownIt().parse(inspect.cleandoc(unveil.__doc__)) if token.type == "code_block"
    ]
    documents.run(documents.Piece(Path(unveil.__file__), 3, "python", block.content))


def test_no_other_docstring_shows_code() -> None:
    """Or it is to be run here: prompts, and indented lines beneath a paragraph."""
    for path in sorted(Path(unveil.__file__).parent.rglob("*.py")):
        if path.parent.name == "recipes" or path == Path(unveil.__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                tokens = documents.MarkdownIt().parse(text)
                shown = [
                    t for t in tokens if t.type == "code_block" or (t.type == "fence" and t.info not in ("", "text"))
                ]
                assert shown == [], f"{path}: {getattr(node, 'name', 'module')}"
                assert ">>>" not in text, f"{path}: {getattr(node, 'name', 'module')}"


class TestTheRunner:
    """What is wrong on a page is an error, and names its line."""

    @staticmethod
    def run(text: str) -> None:
        for piece in documents.pieces(README, text):
            documents.run(piece)

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("    unveil pretrain videomae --data clips/ --out runs/a --device cuda --sise S", "--sise is not a flag"),
            ("    unveil evaluat runs/a --data test/", "no such verb"),
            ("    torchrun --nproc-per-node 2 unveil train vit --data a/ --out b --ratio 0.5", "--ratio is not a flag"),
            ("    unveil recipes videomea", "There is no recipe"),
        ],
    )
    def test_a_mistyped_flag_verb_or_recipe(self, text, match):
        with pytest.raises(UserError, match=match):
            self.run(text)

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("    make dmeo", "no dmeo"),
            ("    python examples/demo.py --output demo", "no flag --output"),
            ('```json\n{"a": }\n```', "Expecting value"),
            ("```python\nimport unveil\n\nunveil.pertrain('mae')\n```", "pertrain"),
        ],
    )
    def test_other_mistakes(self, text, match):
        with pytest.raises((AssertionError, AttributeError, ValueError), match=match):
            self.run(text)

    def test_an_unknown_language_or_command_is_not_passed_over(self):
        with pytest.raises(ValueError, match=r"README\.md:4: a block in 'ruby'"):
            list(documents.pieces(README, "# Title\n\n```ruby\nputs 1\n```\n"))
        with pytest.raises(ValueError, match=r"README\.md:2: 'unviel recipes'"):
            list(documents.pieces(README, "    unveil recipes\n    unviel recipes\n"))

    def test_lines_and_continued_lines(self):
        text = "A page.\n\n```sh\n# what there is\nunveil recipes \\\n    videomae\n```\n\n    a/b.mp4\n"
        (piece,) = documents.pieces(README, text)
        assert (piece.line, piece.text) == (5, "unveil recipes videomae")

    def test_a_traceback_names_the_page_s_line(self):
        with pytest.raises(ZeroDivisionError) as caught:
            self.run("one\n\n```python\na = 1\n1 / 0\n```\n")
        assert (Path(caught.traceback[-1].path).name, caught.traceback[-1].lineno + 1) == ("README.md", 5)


def test_every_verb_is_shown_on_some_page():
    shown = " ".join(piece.text for piece in PIECES if piece.kind == "command")
    for line in cli.SUMMARY.splitlines():
        if line.startswith("  ") and (verb := line.split()[0]) != "data":
            assert f"unveil {verb}" in shown, f"no page shows unveil {verb}"
