import pytest
import torch

from unveil.evaluation import codebook


class Shades(torch.nn.Module):
    """Codes are the pixels themselves."""

    vocab = 8

    def codes(self, batch):
        return batch["image"].flatten(1).long()


def test_counts_perplexity_and_use() -> None:
    batches = [torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]]), torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])]
    found = codebook(Shades(), batches, "image", "cpu")
    assert found.counts.tolist() == [2, 2, 2, 2, 0, 0, 0, 0]
    assert found.metrics == pytest.approx({"perplexity": 4.0, "codes_used": 0.5})


def test_one_code_alone_is_a_perplexity_of_one() -> None:
    assert codebook(Shades(), [torch.full((2, 1, 3, 3), 5.0)], "image", "cpu").perplexity == pytest.approx(1)


def test_no_signals_are_no_codes() -> None:
    assert codebook(Shades(), [], "image", "cpu").metrics == {"perplexity": 1.0, "codes_used": 0.0}
