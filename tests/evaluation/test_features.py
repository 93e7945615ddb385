import pytest
import torch
from evaluation_fakes import Identity, batches

from unveil.errors import UserError
from unveil.evaluation import extract, extract_tokens, pooled
from unveil.evaluation.features import looks
from unveil.tokens import Tokens


@pytest.fixture
def x():
    return torch.randn(10, 2, 6, 1, 5, generator=torch.Generator().manual_seed(0))


def test_extract_averages_views_and_keeps_order(x):
    labels = torch.arange(10) % 3
    features = extract(Identity(6), batches(x, labels, first=100), "image", "cpu")
    torch.testing.assert_close(features.x, x[:, :, :, 0].mean(3).mean(1))
    assert features.x.dtype == torch.float32
    assert features.indices.tolist() == list(range(100, 110))
    assert torch.equal(features.labelled()[1], labels)


def test_layer_reaches_the_encoder_and_modes_come_back(x):
    encoder = Identity(6).train()
    extract(encoder, batches(x, None), "image", "cpu", layer=3)
    assert set(encoder.layers) == {3}
    assert encoder.training


def test_features_can_be_trained_through_afterwards(x):
    encoder = Identity(6)
    features = extract(encoder, batches(x, None), "image", "cpu")
    (encoder.scale * features.x).sum().backward()  # fails on a tensor of inference mode
    assert encoder.scale.grad is not None


def test_pools():
    encoder = Identity(2, prefix=True)
    tokens = Tokens(
        torch.tensor([[[1.0, 8.0], [3.0, 2.0], [9.0, 9.0]]]),
        torch.zeros(1, 3, 1, dtype=torch.int64),
        (3,),
        torch.tensor([[[7.0, 7.0]]]),
        torch.tensor([[True, True, False]]),
    )
    assert pooled(encoder, tokens, "mean").tolist() == [[2.0, 5.0]]
    assert pooled(encoder, tokens, "max").tolist() == [[3.0, 8.0]]
    assert pooled(encoder, tokens, "class").tolist() == [[7.0, 7.0]]
    assert pooled(encoder, tokens, "encoder").tolist() == [[1.0, 8.0]]
    assert pooled(encoder, tokens._replace(valid=None), "max").tolist() == [[9.0, 9.0]]
    with pytest.raises(UserError, match="median"):
        pooled(encoder, tokens, "median")
    with pytest.raises(UserError, match="no class token"):
        pooled(encoder, tokens._replace(prefix=None), "class")


def test_tokens_in_memory_and_on_disk_are_the_same(x):
    labels = torch.arange(10) % 3
    kept = extract_tokens(Identity(6, prefix=True), batches(x, labels), "image", "cpu")
    assert kept.x.shape == (10, 2, 6, 6)  # n, V, class token + 5 columns, D
    assert kept.x.dtype == torch.float16
    torch.testing.assert_close(kept.x[:, :, 1:], x[:, :, :, 0].transpose(2, 3).half())
    batch = kept.x[:4].nbytes
    for limit in (0, batch, 2 * batch):
        spilled = extract_tokens(Identity(6, prefix=True), batches(x, labels), "image", "cpu", limit=limit)
        assert torch.equal(spilled.x, kept.x)
        assert torch.equal(spilled.labelled()[1], labels)
        assert torch.equal(spilled.x[torch.tensor([7, 2])], kept.x[torch.tensor([7, 2])])


def test_errors(x):
    with pytest.raises(UserError, match="empty"):
        extract(Identity(6), [], "image", "cpu")
    with pytest.raises(UserError, match="empty"):
        extract_tokens(Identity(6), [], "image", "cpu")
    with pytest.raises(UserError, match="no labels"):
        extract(Identity(6), batches(x, None), "image", "cpu").labelled()
    with pytest.raises(UserError, match="half precision"):
        extract_tokens(Identity(6), batches(x * 1e6, None), "image", "cpu", layer=2)
    with pytest.raises(UserError, match=r"\[2, 5\] and of \[2, 3\] views and tokens"):
        extract_tokens(Identity(6), [*batches(x, None), *batches(x[..., :3], None)], "image", "cpu")
    with pytest.raises(KeyError, match="video"):
        next(looks({"image": x}, ["video"], "cpu"))


def test_a_full_disk_is_said(x, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(UserError, match="TMPDIR"):
        extract_tokens(Identity(6), batches(x, None), "image", "cpu", limit=0)


def test_indices_without_an_index(x):
    without = [{"image": b["image"]} for b in batches(x, None)]
    assert extract(Identity(6), without, "image", "cpu").indices.tolist() == list(range(10))


def test_samples_without_a_label_and_bad_files(x):
    labels = torch.tensor([0, -1, 1, -1, 2, 0, 1, 2, 0, -1])
    given = batches(x, labels)
    given[0]["bad"] = [("a.mp4", "a.mp4: broken")]
    features = extract(Identity(6), given, "image", "cpu")
    known, kept = features.labelled()
    assert kept.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert torch.equal(known, features.x[labels >= 0])
    assert features.bad == [("a.mp4", "a.mp4: broken")]
    with pytest.raises(UserError, match="no labels"):
        features._replace(labels=torch.full((10,), -1)).labelled()
