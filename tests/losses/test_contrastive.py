"""A sample is told from all others, wherever they are: in other chunks, and in other processes."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed
from torch.nn import functional

from unveil.losses import contrast, contrast_with, gathered, negative_cosine, similarities
from unveil.training import processes

WIDTH = 6


def normalised(rows: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, WIDTH, generator=generator), dim=1)


def naive(queries: torch.Tensor, keys: torch.Tensor, scale: float | torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(scale * (queries @ keys.T), torch.arange(len(queries)))


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 13), chunk=st.integers(1, 14), seed=st.integers(0, 99))
def test_chunks_change_neither_the_loss_nor_a_gradient(rows: int, chunk: int, seed: int) -> None:
    answers = []
    for loss in (naive, lambda q, k, s: contrast(q, k, s, chunk)):
        leaves = [normalised(rows, seed), normalised(rows, seed + 100), torch.tensor(5.0)]
        value = loss(*[leaf.requires_grad_() for leaf in leaves])
        answers.append([value.detach(), *torch.autograd.grad(value, leaves)])
    for theirs, ours in zip(*answers, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_values_that_are_known() -> None:
    queries = keys = torch.eye(4)
    # Four unit vectors at right angles: e^s among e^s + 3 ones.
    assert contrast(queries, keys, 2.0).item() == pytest.approx(math.log(math.exp(2) + 3) - 2, rel=1e-6)
    assert contrast(queries, keys.roll(1, 0), 2.0).item() == pytest.approx(math.log(math.exp(2) + 3), rel=1e-6)


def test_given_negatives() -> None:
    queries, keys, negatives = normalised(3, 0), normalised(3, 1), normalised(7, 2)
    logits = similarities(queries, keys, negatives)
    assert logits.shape == (3, 8)
    assert logits[1, 0].item() == pytest.approx(float(queries[1] @ keys[1]), abs=1e-6)
    assert logits[2, 5].item() == pytest.approx(float(queries[2] @ negatives[4]), abs=1e-6)
    rows = [-functional.log_softmax(row * 5, 0)[0] for row in logits]
    assert contrast_with(queries, keys, negatives, 5.0).item() == pytest.approx(
        torch.stack(rows).mean().item(), rel=1e-5
    )


def test_low_precision_is_left_at_the_door() -> None:
    queries, keys = normalised(4, 0), normalised(4, 1)
    with torch.autocast("cpu", torch.bfloat16):
        inside = contrast(queries, keys, 20.0)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, contrast(queries, keys, 20.0))


def test_cosine() -> None:
    x = normalised(5, 0)
    assert negative_cosine(x, 3 * x).item() == pytest.approx(-1)
    assert negative_cosine(x, -x).item() == pytest.approx(1)


def test_one_process_gathers_its_own() -> None:
    x = normalised(3, 0)
    everyone, first = gathered(x)
    assert everyone is x
    assert first == 0


# ── Several processes ────────────────────────────────────────────────────────────────────────────────────────────────────


def whole(rows: int) -> dict[str, torch.Tensor]:
    """What is learned from: a batch, and the parameters."""
    generator = torch.Generator().manual_seed(rows)
    return {
        "x": torch.randn(rows, 8, generator=generator),
        "y": torch.randn(rows, 8, generator=generator),
        "a": torch.randn(8, WIDTH, generator=generator).requires_grad_(),
        "b": torch.randn(8, WIDTH, generator=generator).requires_grad_(),
        "scale": torch.tensor(3.0).requires_grad_(),
    }


def losses(x: torch.Tensor, y: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Both ways, as CLIP has it; the second in chunks."""
    queries, keys = functional.normalize(x @ a, dim=1), functional.normalize(y @ b, dim=1)
    return contrast(queries, keys, scale) + contrast(keys, queries, scale, chunk=2)


def of_one_process(batch: tuple[int, Path]) -> None:
    """A process's part of the rows; losses and gradients are put together as the training loop does."""
    rows, folder = batch
    processes.join(torch.device("cpu"))
    rank, world = distributed.get_rank(), distributed.get_world_size()
    low, high = (rows * r // world for r in (rank, rank + 1))
    given = whole(rows)
    loss = losses(given["x"][low:high], given["y"][low:high], given["a"], given["b"], given["scale"])
    (loss * ((high - low) / rows * world)).backward()
    numbers = [
        loss.detach() * (high - low) / rows,
        *[torch.as_tensor(given[name].grad) / world for name in ("a", "b", "scale")],
    ]
    for number in numbers:
        distributed.all_reduce(number)
    everyone, first = gathered(given["x"][low:high])
    assert torch.equal(everyone, given["x"])
    assert first == low
    if rank == 0:
        torch.save(numbers, folder / f"{rows}.pt")


def of_all_processes(folder: Path) -> None:
    for rows in (8, 7):
        of_one_process((rows, folder))


@pytest.mark.parametrize("count", [2, 3])
def test_processes_learn_what_one_learns(tmp_path: Path, count: int) -> None:
    """Also where their batches are not of one size."""
    processes.start(of_all_processes, tmp_path, count)
    for rows in (8, 7):
        given = whole(rows)
        loss = losses(**given)
        expected = [loss.detach(), *torch.autograd.grad(loss, [given[name] for name in ("a", "b", "scale")])]
        for theirs, one in zip(torch.load(tmp_path / f"{rows}.pt", weights_only=True), expected, strict=True):
            torch.testing.assert_close(theirs, one)
