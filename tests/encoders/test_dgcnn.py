"""The graph network over points, and the layer that it is made of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unveil.encoders import DGCNN, PointEncoder
from unveil.errors import UserError
from unveil.layers import EdgeConvolution
from unveil.masking import Random
from unveil.tokens import nearest


def cloud(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("training", [True, False])
def test_an_edge_convolution_is_a_convolution_of_edges(training):
    """As published: the edge [x_j - x_i, x_i] of each point and neighbour, a layer, a norm over all edges, the largest."""
    torch.manual_seed(0)
    layer = EdgeConvolution(5, 7, neighbours=4).train(training)
    nn.init.normal_(layer.norm.weight)
    x = cloud(2, 12, 5)
    indices = nearest(x, x, 4)
    edges = torch.stack(
        [
            torch.cat([one[rows] - one[:, None], one[:, None].expand(-1, 4, -1)], dim=-1)
            for one, rows in zip(x, indices, strict=True)
        ]
    )
    plain = nn.BatchNorm2d(7).train(training)
    plain.load_state_dict(layer.norm.state_dict())
    expected = nn.functional.leaky_relu(plain(layer.linear(edges).movedim(-1, 1)), 0.2).amax(-1).transpose(1, 2)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layer.norm.running_var, plain.running_var)


def test_the_order_of_points_changes_nothing():
    torch.manual_seed(0)
    network = DGCNN(16, neighbours=5).eval()
    x, order = cloud(1, 30, 3), torch.randperm(30)
    torch.testing.assert_close(network(x[:, order]), network(x)[:, order])


def test_groups_are_embedded_by_their_largest_points():
    torch.manual_seed(0)
    single, grouped = DGCNN(16, neighbours=5).eval(), DGCNN(16, group=6, neighbours=5).eval()
    grouped.load_state_dict(single.state_dict())
    x = cloud(2, 5, 18)
    of_points = single(x.unflatten(2, (6, 3)).flatten(1, 2))
    torch.testing.assert_close(grouped(x), of_points.unflatten(1, (5, 6)).amax(2))


def test_fewer_points_than_neighbours():
    assert DGCNN(8, neighbours=20).eval()(cloud(2, 3, 3)).isfinite().all()


def test_points_in_one_place_have_finite_gradients():
    x = torch.zeros(2, 10, 3, requires_grad=True)
    DGCNN(8, neighbours=4)(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_encoder():
    torch.manual_seed(0)
    encoder = PointEncoder(DGCNN(16, neighbours=4), 16).eval()
    x = cloud(2, 3, 25)
    tokens = encoder(x)
    assert (tokens.x.shape, tokens.grid) == ((2, 25, 16), (25,))
    assert torch.equal(tokens.coords, x.transpose(1, 2))
    assert [encoder(x, layer=n).x.shape[-1] for n in (1, 2, 3, 4)] == [64, 128, 256, 16]
    assert torch.equal(encoder(x, layer=-1).x, tokens.x)
    assert {encoder.layer_of(name) for name, _ in encoder.named_parameters()} == {0, 1, 2, 3, 4}
    mask = Random(0.5)((25,), torch.Generator())
    with pytest.raises(UserError, match="whole clouds"):
        encoder(x, mask)
    with pytest.raises(ValueError, match="one by one"):
        PointEncoder(DGCNN(16, group=2), 16)
