import pytest
import torch

from unveil.heads import AttentiveHead, LinearHead
from unveil.tokens import Tokens, coordinates


def tokens(num: int = 6, valid: torch.Tensor | None = None) -> Tokens:
    x = torch.randn(2, num, 16, generator=torch.Generator().manual_seed(0))
    return Tokens(x, coordinates((num,)).expand(2, -1, -1), (num,), valid=valid)


def test_linear_uses_the_pooling_it_is_given() -> None:
    head = LinearHead(16, 3)
    seen = tokens()
    assert torch.equal(head(seen, lambda t: t.x[:, 2]), head.linear(seen.x[:, 2]))
    assert head(seen, Tokens.mean).shape == (2, 3)


def test_a_small_std_begins_at_even_odds() -> None:
    logits = LinearHead(16, 4, std=2e-5)(tokens(), Tokens.mean)
    assert logits.softmax(-1).flatten().tolist() == pytest.approx([0.25] * 8, abs=1e-3)


def test_dropout_acts_in_training_alone() -> None:
    head = LinearHead(16, 3, dropout=0.9, std=1.0)
    torch.manual_seed(0)
    assert not torch.equal(head(tokens(), Tokens.mean), head(tokens(), Tokens.mean))
    head.eval()
    assert torch.equal(head(tokens(), Tokens.mean), head(tokens(), Tokens.mean))


def test_attentive_finds_what_a_mean_cannot() -> None:
    # The class is a mark on one token of many; the mean of the tokens is the same for all classes.
    torch.manual_seed(0)
    head = AttentiveHead(16, 2, heads=2)
    x = torch.randn(64, 8, 16)
    label = torch.arange(64) % 2
    x[:, :, 0] = 0
    x[torch.arange(64), 3, 0] = 6.0
    x[:, :, 1] = 0
    x[torch.arange(64), 3, 1] = label * 12.0 - 6
    x[torch.arange(64), 5, 1] = 6 - label * 12.0
    batch = Tokens(x, coordinates((8,)).expand(64, -1, -1), (8,))
    assert torch.allclose(x.mean(1)[:, :2], x.mean(1)[:1, :2])
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(batch), label).backward()
        optimizer.step()
    assert (head(batch).argmax(-1) == label).float().mean() > 0.9


def test_attentive_ignores_padding() -> None:
    head = AttentiveHead(16, 3, heads=2)
    valid = torch.tensor([[True] * 4 + [False] * 2] * 2)
    seen = tokens(valid=valid)
    changed = seen._replace(x=seen.x + (~valid)[..., None] * 5.0)
    torch.testing.assert_close(head(changed), head(seen))
