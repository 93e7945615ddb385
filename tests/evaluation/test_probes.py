import math

import numpy as np
import pytest
import torch
from evaluation_fakes import Identity, batches

from unveil.errors import UserError
from unveil.evaluation import EVALUATORS, Features, Subject, attentive_probe, knn, knn_accuracy, linear_probe, rankme
from unveil.evaluation.linear import split


def blobs(n: int, classes: int, width: int, seed: int, distance: float = 3.0):
    """Gaussian clouds around directions that are the same for every seed."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(n) % classes
    return distance * centres[labels] + torch.randn(n, width, generator=g), labels


def test_knn_by_hand():
    gallery = torch.tensor([[1.0, 0], [0.8, 0.6], [0, 1.0], [-1.0, 0]])
    labels = torch.tensor([0, 1, 1, 0])
    query = torch.tensor([[2.0, 0.0]])
    scores = knn(gallery, labels, query, classes=2, k=3, temperature=0.07)
    weights = [math.exp(s / 0.07) for s in (1.0, 0.8, 0.0)]
    assert scores[0, 0].item() == pytest.approx(weights[0] / sum(weights), rel=1e-4)
    assert scores.sum().item() == pytest.approx(1.0)
    # With a high temperature the two of class 1 outvote the nearest of class 0.
    assert knn(gallery, labels, query, 2, k=3, temperature=100.0).argmax() == 1


def test_knn_takes_all_when_there_are_fewer_than_k_and_chunks_do_not_matter():
    gallery, labels = blobs(7, 3, 5, seed=0)
    queries, _ = blobs(11, 3, 5, seed=1)
    once = knn(gallery, labels, queries, 3, k=20)
    assert once.shape == (11, 3)
    torch.testing.assert_close(once, knn(gallery, labels, queries, 3, k=20, chunk=2))
    assert knn(gallery, labels, queries[:0], 3).shape == (0, 3)


def test_knn_with_several_labels():
    gallery = torch.eye(2)
    labels = torch.tensor([[1.0, 1, 0], [0, 0, 1.0]])
    scores = knn(gallery, labels, torch.tensor([[1.0, 0.01]]), 3, k=1)
    assert scores.tolist() == [[1.0, 1.0, 0.0]]
    features = Features(gallery, labels, torch.arange(2))
    assert knn_accuracy(features, features, ["a", "b", "c"]) == 1.0


def test_knn_accuracy():
    x, y = blobs(60, 3, 8, seed=0)
    q, z = blobs(30, 3, 8, seed=1)
    names = ["a", "b", "c"]
    assert knn_accuracy(Features(x, y, torch.arange(60)), Features(q, z, torch.arange(30)), names) == 1.0
    wrong = Features(q, (z + 1) % 3, torch.arange(30))
    assert knn_accuracy(Features(x, y, torch.arange(60)), wrong, names) == 0.0


def test_rankme():
    g = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(64, 16, generator=g))
    assert rankme(q) == pytest.approx(16, rel=1e-3)  # 16 equal singular values
    assert rankme(q[:, :1] @ torch.randn(1, 16, generator=g)) == pytest.approx(1, abs=1e-3)
    values = torch.tensor([4.0, 2.0, 1.0])
    p = (values / values.sum()).numpy() + 1e-7
    assert rankme(q[:, :3] * values) == pytest.approx(float(np.exp(-(p * np.log(p)).sum())), rel=1e-5)
    assert rankme(3 * q) == pytest.approx(rankme(q))
    assert rankme(torch.zeros(4, 3)) == pytest.approx(1, abs=1e-4)


def test_linear_probe_is_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    x, y = blobs(120, 3, 6, seed=0, distance=0.7)
    q, _ = blobs(40, 3, 6, seed=1, distance=0.7)
    x, q = 10 * x + 5, 10 * q + 5
    penalty = 1e-2
    mine, chosen = linear_probe(x, y, q, 3, penalties=[penalty])
    assert chosen == penalty
    mean, deviation = x.mean(0), x.std(0, correction=0)
    theirs = LogisticRegression(C=1 / (penalty * len(x)), max_iter=2000, tol=1e-8)
    theirs.fit(((x - mean) / deviation).numpy(), y.numpy())
    expected = theirs.predict_proba(((q - mean) / deviation).numpy())
    np.testing.assert_allclose(mine.numpy(), expected, atol=2e-3)


def test_linear_probe_chooses_a_penalty_that_fits_the_data():
    # More features than samples, almost all of them noise: a weak penalty is far too sure of itself.
    g = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 2
    x = torch.randn(60, 200, generator=g)
    x[:, 0] += 2 * (y * 2 - 1)
    queries, truth = torch.randn(400, 200, generator=g), torch.arange(400) % 2
    queries[:, 0] += 2 * (truth * 2 - 1)

    def loss(p):
        return -p[torch.arange(400), truth].clamp_min(1e-9).log().mean().item()

    p, chosen = linear_probe(x, y, queries, 2)
    assert chosen >= 1e-1
    assert loss(p) < loss(linear_probe(x, y, queries, 2, penalties=[1e-5])[0])
    again, _ = linear_probe(x, y, queries, 2)
    assert torch.equal(p, again)


def test_linear_probe_details():
    x, y = blobs(30, 3, 6, seed=0)
    x[:, 2] = 4.0  # never changes
    q = x.clone()
    q[:, 2] = 1e9  # so nothing may depend on it
    p, _ = linear_probe(x, y, q, 3)
    assert (p.argmax(1) == y).all()
    # One sample of each class: nothing can be held out, the middle of the list is taken.
    _, chosen = linear_probe(x[:3], y[:3], q, 3, penalties=[1.0, 0.1, 0.01])
    assert chosen == 0.1
    hot = torch.nn.functional.one_hot(y, 3).float()
    hot[:, 0] = 1
    p, _ = linear_probe(x, hot, x, 3)
    assert ((p > 0.5) == (hot > 0.5)).all()
    with pytest.raises(UserError, match="NaN"):
        linear_probe(torch.full((6, 2), float("nan")), y[:6], q[:, :2], 3)


def test_split_keeps_every_class():
    labels = torch.tensor([0] * 10 + [1] * 5 + [2])
    fit, held = split(labels, seed=0)
    assert sorted(fit.tolist() + held.tolist()) == list(range(16))
    assert [int((labels[held] == c).sum()) for c in range(3)] == [2, 1, 0]
    assert not torch.equal(held, split(labels, seed=1)[1])


def order(n: int, seed: int):
    """Sequences of tokens that only differ in whether a marked token holds + or −: the mean token is the same."""
    g = torch.Generator().manual_seed(seed)
    x = 0.1 * torch.randn(n, 1, 6, 16, generator=g)
    labels = torch.arange(n) % 2
    sign = (labels * 2 - 1).float()
    place = torch.randint(0, 5, (n,), generator=g)
    rows = torch.arange(n)
    x[rows, 0, place, 0] += 3
    x[rows, 0, place, 1] += 3 * sign
    x[rows, 0, place + 1, 1] -= 3 * sign
    return x.half(), labels


def test_attentive_probe_sees_what_the_mean_hides():
    x, y = order(256, seed=0)
    q, z = order(64, seed=1)
    p, lr = attentive_probe(x, y, q, 2, epochs=30, lrs=(3e-3,))
    assert lr == 3e-3
    assert (p.argmax(1) == z).float().mean() > 0.95
    blind, _ = linear_probe(x.float().mean((1, 2)), y, q.float().mean((1, 2)), 2)
    assert (blind.argmax(1) == z).float().mean() < 0.75


def test_attentive_probe_is_seeded_and_leaves_the_generator_alone():
    x, y = order(24, seed=0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, _ = attentive_probe(x, y, x, 2, epochs=2)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    assert torch.equal(first, attentive_probe(x, y, x, 2, epochs=2)[0])
    assert not torch.equal(first, attentive_probe(x, y, x, 2, epochs=2, seed=1)[0])


def test_attentive_probe_sweeps_learning_rates():
    x, y = order(64, seed=0)
    _, lr = attentive_probe(x, y, x[:2], 2, epochs=10, lrs=(1e-7, 3e-3))
    assert lr == 3e-3
    with pytest.raises(UserError, match="learning rate"):
        attentive_probe(x, y, x, 2, lrs=())


def test_attentive_probe_views_and_several_labels():
    x, y = order(48, seed=0)
    views = torch.cat([x, x], 1)
    hot = torch.nn.functional.one_hot(y, 2).float()
    p, _ = attentive_probe(views, hot, views, 2, epochs=40, batch=8, lrs=(1e-3, 3e-3))
    assert p.shape == (48, 2)
    assert ((p > 0.5) == (hot > 0.5)).float().mean() > 0.9
    odd = torch.cat([x, x[..., :7]], 3)  # width 23 has no common divisor with 64
    assert attentive_probe(odd, y, odd, 2, epochs=1)[0].shape == (48, 2)


@pytest.mark.parametrize("by", ["knn", "linear", "attentive"])
def test_evaluators(by):
    x, y = blobs(48, 3, 8, seed=0)
    q, z = blobs(24, 3, 8, seed=1)

    def image(v):  # [n,D] → [n,V,D,1,N]
        return v[:, None, :, None, None].expand(-1, 2, -1, 1, 3)

    subject = Subject(None, Identity(8), "image", ["a", "b", "c"])
    options = {"epochs": 20} if by == "attentive" else {}
    report = EVALUATORS[by](subject, batches(image(x), y), batches(image(q), z), layer=1, **options)
    assert report.name == by
    assert report.metrics["top1"] > 0.95
    assert report.settings["layer"] == 1
    with pytest.raises(UserError, match="only a test split"):
        EVALUATORS[by](subject, None, batches(image(q), z))
    with pytest.raises(UserError, match="no labels"):
        EVALUATORS[by](subject, batches(image(x), None), batches(image(q), z))
