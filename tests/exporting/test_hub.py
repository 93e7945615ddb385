"""To the Hub and back, against a server of one's own on the loopback."""

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from exported import answer, batch_of, run_of
from fake_hub import OWNER, TOKEN, FakeHub, serving

import unveil
from unveil import cli
from unveil.errors import UserError
from unveil.hub import pull, push
from unveil.transformers_folder import FILES

pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


def test_there_and_back(hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of("videomae-finetune", tmp_path / "run")
    cli.run(["export", str(run.path), "--format", "huggingface", "--push", "someone/mine", "--private"])
    assert f"pushed to {hub.address}/{OWNER}/mine" in " ".join(capsys.readouterr().err.split())
    assert set(hub.repositories[f"{OWNER}/mine"]) == set(FILES) - {"pytorch_model.bin", "tokenizer.json", "merges.txt"}
    assert hub.private == {f"{OWNER}/mine"}
    cli.run(["import", "hub:someone/mine", "--out", str(tmp_path / "back")])
    back = unveil.load(tmp_path / "back", "cpu")
    x = batch_of(run)
    torch.testing.assert_close(answer(back, x), answer(run, x))
    assert back.classes == run.classes
    assert back.info["asked"]["start"] == "hub:someone/mine"
    again = unveil.import_(f"hub:someone/mine@{hub.sha('someone/mine')}", out=tmp_path / "again", quiet=True)
    assert again.classes == run.classes


def test_other_files_of_the_folder_stay_at_home(hub: FakeHub, tmp_path: Path) -> None:
    run = run_of("vit", tmp_path / "run")
    folder = unveil.export(run, format="huggingface", quiet=True)
    (folder / "notes.md").write_text("mine")
    unveil.export(run, format="huggingface", push="mine", overwrite=True, quiet=True)
    assert "notes.md" not in hub.repositories[f"{OWNER}/mine"]


def test_only_data_comes_in_under_names_of_ours(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories["a/b"] = {
        "config.json": b"{}",
        "../../evil.py": b"import os",
        "modeling.py": b"import os",
        "x/y.json": b"",
    }
    folder = pull("hub:a/b", FILES)
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".py"]
    assert not any("evil" in line or "modeling" in line for line in hub.asked)


def test_a_pickle_that_is_more_than_data_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "was-run",)

    torch.save({"w": Evil()}, tmp_path / "evil.bin")
    config = {"model_type": "vit", "num_attention_heads": 2}
    hub.repositories["a/b"] = {
        "config.json": json.dumps(config).encode(),
        "pytorch_model.bin": (tmp_path / "evil.bin").read_bytes(),
    }
    with pytest.raises(UserError, match=r"pytorch_model\.bin: refused"):
        unveil.import_("hub:a/b", out=tmp_path / "back")
    assert not (tmp_path / "was-run").exists()


class TestErrors:
    @pytest.mark.parametrize(
        ("source", "words"),
        [
            ("hub:a/none", "there is no such repository, or it is private"),
            ("hub:a/b@old", "the repository has no such revision"),
            ("hub:../b", "is no name of a repository"),
            ("hub:a/b/c", "is no name of a repository"),
            ("hub:a/gated", "lets only those in who have asked"),
            ("hub:a/empty", "holds none of config.json"),
        ],
    )
    def test_pulling(self, source: str, words: str, hub: FakeHub, tmp_path: Path) -> None:
        hub.repositories |= {
            "a/b": {"config.json": b"{}"},
            "a/gated": {"config.json": b"{}"},
            "a/empty": {"x.txt": b""},
        }
        hub.gated.add("a/gated")
        with pytest.raises(UserError, match=words):
            unveil.import_(source, out=tmp_path / "back", quiet=True)
        assert not (tmp_path / "back").exists()

    def test_a_private_one_without_a_token(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        hub.repositories["a/b"] = {"config.json": b"{}"}
        hub.private.add("a/b")
        assert pull("hub:a/b", FILES)
        monkeypatch.delenv("HF_TOKEN")
        with pytest.raises(UserError, match="the token may not see it"):
            pull("hub:a/b", FILES)

    def test_no_token_and_a_wrong_one(self, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "config.json").write_text("{}")
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        with pytest.raises(UserError, match=r"the token may not do that \(HTTP 401\)"):
            push(tmp_path, ["config.json"], "mine")
        monkeypatch.delenv("HF_TOKEN")
        with pytest.raises(UserError, match="--push mine needs a token: log in with `hf auth login`"):
            push(tmp_path, ["config.json"], "mine")
        assert not hub.repositories

    def test_offline(self, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        (tmp_path / "config.json").write_text("{}")
        for act in (lambda: pull("hub:a/b", FILES), lambda: push(tmp_path, ["config.json"], "mine")):
            with pytest.raises(UserError, match=r"127\.0\.0\.1:\d+ cannot be reached .* Is this machine online"):
                act()

    def test_without_the_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        for act in (lambda: pull("hub:a/b", FILES), lambda: push(tmp_path, [], "mine")):
            with pytest.raises(
                UserError, match=r"needs huggingface_hub, which is not installed: pip install 'unveil\[hub\]'"
            ):
                act()
