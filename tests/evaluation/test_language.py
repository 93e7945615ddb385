"""Ranks and recalls against their definition; names and prompts; zero-shot and retrieval of a network that knows the answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from unveil.errors import UserError
from unveil.evaluation import language


@settings(max_examples=40, deadline=None)
@given(signals=st.integers(1, 7), seed=st.integers(0, 999), data=st.data())
def test_ranks_are_as_defined(signals: int, seed: int, data) -> None:
    owner = data.draw(st.lists(st.integers(0, signals - 1), min_size=1, max_size=12))
    generator = torch.Generator().manual_seed(seed)
    x, t = (functional.normalize(torch.randn(n, 3, generator=generator), dim=1) for n in (signals, len(owner)))
    of_signal, of_text = language.ranks(x, t, torch.tensor(owner))
    for i in range(signals):
        order = (x[i] @ t.T).argsort(descending=True).tolist()
        own = [order.index(j) for j in range(len(owner)) if owner[j] == i]
        # Texts before the first own one.
        assert of_signal[i] == (min(own) if own else -1)
    for j, mine in enumerate(owner):
        assert of_text[j] == (t[j] @ x.T).argsort(descending=True).tolist().index(mine)


def test_recalls() -> None:
    # Three images; the first has two texts. The second's text is more like the first image.
    x = torch.eye(3)
    t = functional.normalize(torch.tensor([[1.0, 0, 0], [0, 0, 1.0], [1.0, 0.9, 0], [0, 0.1, 1.0]]), dim=1)
    found = language.recalls(x, t, torch.tensor([0, 0, 1, 2]))
    assert found["image_to_text_r1"] == pytest.approx(2 / 3)  # the third image is nearest to another's text
    assert found["image_to_text_r5"] == 1
    assert found["text_to_image_r1"] == pytest.approx(2 / 4)
    assert found["text_to_image_r5"] == found["text_to_image_r10"] == 1


def test_equal_ones_do_not_count_as_found() -> None:
    """A network that collapsed finds nothing."""
    x = torch.ones(20, 4) / 2
    found = language.recalls(x, x, torch.arange(20))
    assert found["image_to_text_r10"] == found["text_to_image_r10"] == 0


def test_names_of_classes(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    assert language.names_for(["a_b", "c"], None) == (["a_b", "c"], ["a b", "c"])
    file.write_text("c\nmore\na_b\n")
    assert language.names_for(["a_b", "c"], file) == (["c", "more", "a_b"], ["c", "more", "a b"])
    file.write_text("tench\n\ngoldfish\n")
    assert language.names_for(["n01440764", "n01443537"], file) == (
        ["n01440764", "n01443537"],
        ["tench", "goldfish"],
    )
    with pytest.raises(UserError, match="is none of its 2 names"):
        language.names_for(["a", "b", "c"], file)
    file.write_text("a\na\n")
    with pytest.raises(UserError, match="two classes have the name 'a'"):
        language.names_for(["a"], file)
    with pytest.raises(UserError, match="cannot be read"):
        language.names_for(["a"], tmp_path / "absent.txt")


def test_templates(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    assert all(template.count("{}") == 1 for template in language.read_templates(None))
    file.write_text("one {}\n{} two\n")
    assert language.read_templates(file) == ["one {}", "{} two"]
    file.write_text("no place\n")
    with pytest.raises(UserError, match="where the name"):
        language.read_templates(file)
    file.write_text("\n")
    with pytest.raises(UserError, match="holds no line"):
        language.read_templates(file)


class Oracle(nn.Module):
    """Signals are one-hot; a text's id says which of them it means."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor([2.0]))

    def embed(self, key: str, x: Tensor) -> Tensor:
        return x if key == "image" else functional.one_hot(x[:, 0], 4).float()


WORDS = {"cat": 0, "dog": 1, "bird": 2, "fish": 3}


def encode(texts) -> Tensor:
    return torch.tensor([[next(n for word, n in WORDS.items() if word in text)] for text in texts])


def batches(numbers: list[int], labels: list[int] | None = None):
    x = functional.one_hot(torch.tensor(numbers), 4).float()[:, None]
    yield {"image": x, "index": torch.arange(len(numbers)), **({"label": torch.tensor(labels)} if labels else {})}


def test_zero_shot_of_an_oracle() -> None:
    names = list(WORDS)[:3]
    report = language.zero_shot(
        Oracle(), encode, batches([0, 1, 2, 1], [0, 1, 2, 0]), "image", names, names, ["a {}", "the {}"]
    )
    assert report.metrics["top1"] == 0.75
    assert report.predictions[1]["probability"] == pytest.approx(
        torch.tensor([7.389, 0, 0]).softmax(0).max().item(), rel=1e-3
    )


def test_retrieval_of_an_oracle(tmp_path: Path) -> None:
    captions = [["a cat", "one cat"], ["a dog"], ["a fish"]]
    report = language.retrieval(Oracle(), encode, batches([0, 1, 2]), "image", captions)
    assert report.metrics["image_to_text_r1"] == pytest.approx(2 / 3)
    assert report.metrics["text_to_image_r1"] == pytest.approx(3 / 4)
    assert report.predictions[-1] == {"index": 2, "caption": "a fish", "rank": 3}
    written = report.save(tmp_path, ["1.png", "2.png", "3.png"])
    assert sorted(path.name for path in written) == ["retrieval.csv", "retrieval.json"]
    assert report.table().row_count == len(report.metrics)


def test_one_mean_of_prompts() -> None:
    x = language.class_embeddings(Oracle(), encode, ["cat", "dog"], ["a {}", "cat or {}"], "cpu")
    assert x.norm(dim=1).tolist() == pytest.approx([1, 1])
    assert x[1].tolist() == pytest.approx([0.7071, 0.7071, 0, 0], abs=1e-3)


def test_a_run_without_words() -> None:
    with pytest.raises(UserError, match="knows texts"):
        language.towers_of(nn.Linear(1, 1), None, "--by retrieval")
