"""Names come from strangers: on a page they are text, in a table they are no formula."""

import csv
import json
import string
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from serving_runs import IMAGE, make_run, write_image, write_log, write_manifest

from unveil.data import Row
from unveil.errors import UserError
from unveil.evaluation import summarise
from unveil.evaluation.report import cell
from unveil.serve import Hit, report, search_page, write_rows
from unveil.serve.index import nearest, read_index
from unveil.storage import write_json

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "</style><style>*{background:url(http://evil.example/)}",
    "{{ 7*7 }}{% raw %}",
    "&lt;b&gt; \u202egpj.exe",
)
#: What the templates are made of; anything else came in through a name.
TAGS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "header",
        "footer",
        "nav",
        "section",
        "div",
        "span",
        "p",
        "b",
        "br",
    ),
    *(
        "a",
        "h1",
        "h2",
        "h3",
        "dl",
        "dt",
        "dd",
        "pre",
        "figure",
        "figcaption",
        "img",
        "table",
        "tr",
        "th",
        "td",
        "details",
        "summary",
        "audio",
    ),
    *("svg", "line", "text", "polyline", "circle"),
}


class Page(HTMLParser):
    """Reads a page as a browser does, and notes whatever could load or run something."""

    def __init__(self, text: str):
        super().__init__()
        self.wrong: list[str] = []
        self.text: list[str] = []
        self.policy = ""
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        if tag not in TAGS:
            self.wrong.append(f"<{tag}>")
        for name, value in attrs:
            value = value or ""
            if name.startswith("on") or (name == "http-equiv" and value != "Content-Security-Policy"):
                self.wrong.append(f"{tag} {name}={value}")
            if name in ("src", "href", "action", "data", "xlink:href", "srcset"):
                allowed = (
                    value.startswith(("data:image/", "data:audio/"))
                    if name == "src"
                    else value[:1] == "#" or value == "bad.jsonl"
                )
                if not allowed or ("(" in value):
                    self.wrong.append(f"{tag} {name}={value[:80]}")
            if name == "style" and "url" in value:
                self.wrong.append(f"{tag} {name}={value}")
            if name == "content" and "default-src" in value:
                self.policy = value

    def handle_data(self, data):
        if self.inside == "style":
            for word in ("@import", "url(", "evil"):
                if word in data:
                    self.wrong.append(f"style sheet: {word}")
        self.text.append(data)

    def handle_endtag(self, tag):
        self.inside = ""


def check(text: str, *shown: str) -> None:
    page = Page(text)
    assert page.wrong == []
    assert page.policy.startswith("default-src 'none'")
    body = "".join(page.text)
    for name in shown:
        assert name in body, "a name was changed on its way to the page"


def test_the_parser_of_this_test_sees_what_is_wrong():
    for text in (
        "<script>1</script>",
        "<img src=x onerror=1>",
        "<a href='javascript:1'>",
        "<style>@import 'x'</style>",
    ):
        assert Page(text).wrong


def test_report(tmp_path):
    """Hostile class names, labels, file names, flags, settings, errors, versions and evaluations."""
    classes, evil = sorted(HOSTILE), " ".join(HOSTILE)
    more = {
        "asked": {"data": [evil], "seed": evil, evil: evil},
        "preprocessing": {evil: [evil]},
        "command": ["train", "vit", evil],
        "licence_of_start": evil,
        "data_hash": evil,
        "files": {"train": 4, "validation": 0},
    }
    count = len(classes)
    run = make_run(tmp_path / HOSTILE[1], "vit", {**IMAGE, "num_classes": count}, classes, **more)
    run.info |= {"created": evil, "status": evil, "verb": evil, "versions": {evil: evil}}
    names = [name.replace("/", "_") for name in classes]
    rows = [Row(str(write_image(tmp_path / "p" / f"{i}{names[i]}.png", i)), classes[i]) for i in range(count)]
    rows += [Row(str(tmp_path / "p" / f"gone{name}.png"), name) for name in names]
    write_manifest(run, [row._replace(label=row.label.replace(";", "")) for row in rows])
    write_log(run, [{"step": i + 1, "loss": 1.0, "lr": 0.1, evil: 1.0, "top1": evil} for i in range(3)])
    (run.path / "bad.jsonl").write_text(json.dumps({"path": f"/{evil}", "error": evil}) + "\n")
    saved = summarise("accuracy", torch.eye(count), torch.arange(count), torch.arange(count), classes, views=evil)
    saved.save(run.path / "evaluate")
    info = json.loads((run.path / "evaluate" / "accuracy.json").read_text())
    info |= {"name": evil, "metrics": {**info["metrics"], evil: 0.5}, "settings": {evil: evil}}
    (run.path / "evaluate" / "accuracy.json").write_text(json.dumps(info))
    page = report(run).read_text(encoding="utf-8")
    check(page, *HOSTILE, *names)
    assert "None of the run's files" not in page


@pytest.mark.parametrize("evil", HOSTILE)
def test_search_page(tmp_path, evil):
    named = evil.replace("/", "_")
    there = write_image(tmp_path / f"a{named}.png", 0)
    hits = [Hit(str(there), None, None, 0.9), Hit(f"/gone/{named}.png", None, None, 0.5)]
    search_page(hits, there, tmp_path / "page.html")
    check((tmp_path / "page.html").read_text(encoding="utf-8"), named)


FORMULAS = ('=HYPERLINK("http://evil.example")', "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1")


@pytest.mark.parametrize("evil", FORMULAS)
def test_csv_holds_no_formula(tmp_path, evil):
    rows = [
        {"path": evil, "start": None, "end": None, "top": [(evil, 0.75), ("-1", 0.25)]},
        {"path": evil, "error": evil},
    ]
    write_rows(rows, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        header, *found = list(csv.reader(file))
    for line in found:
        for value in line:
            assert not value or value[0] in string.ascii_letters + string.digits + "./'" or value == "-1"
    assert found[0][header.index("path")] == f"./{evil}", "another name of the same file"
    assert found[0][header.index("class_1")] == f"'{evil}"
    assert found[0][header.index("class_2")] == "-1", "a number is a number"
    write_rows(rows, tmp_path / "a.jsonl")
    assert json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])["path"] == evil, "JSON needs no disguise"

    classes = sorted([evil, "b"])
    result = summarise("accuracy", torch.eye(2), torch.tensor([0, 1]), torch.arange(2), classes)
    result.save(tmp_path / "e", [evil, "b.mp4"])
    for name in ("accuracy.csv", "accuracy_classes.csv"):
        with (tmp_path / "e" / name).open(newline="", encoding="utf-8") as file:
            assert not any(value.startswith(tuple("=+-@\t\r")) for line in csv.reader(file) for value in line)


def test_cells_that_need_no_disguise():
    for value in ("a=b", "/tmp/=a.mp4", "", None, 3, -0.5, "-1e-3", "+7"):
        assert cell(value) == value


def test_an_index_that_embed_did_not_write(tmp_path):
    info = {"format": 1, "run": "r", "weights": "w", "layer": None, "pool": "mean", "hop": None, "width": 2}
    write_json(tmp_path / "index.json", info)
    queries = torch.ones(1, 2).numpy()
    parquet = tmp_path / "embeddings.parquet"
    for content in (b"", b"PAR1 nothing PAR1"):
        parquet.write_bytes(content)
        with pytest.raises(UserError, match="embed again"):
            nearest(tmp_path, queries)
    pq.write_table(pa.table({"path": ["a"], "start": [0.0], "end": [1.0], "embedding": [[1.0, 2.0, 3.0]]}), parquet)
    with pytest.raises(UserError, match="another type than embed writes"):
        nearest(tmp_path, queries)
    for text, says in (("{", "cannot be read"), ("[]", "cannot be read"), ('{"format": 1}', "does not say")):
        (tmp_path / "index.json").write_text(text)
        with pytest.raises(UserError, match=says):
            read_index(tmp_path)
