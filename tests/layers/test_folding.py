"""Networks for inference are equal to those they were made of."""

import pytest
import torch
from torch import nn

from unveil import build
from unveil.layers import channels_last, folded


def trained(network: nn.Module) -> nn.Module:
    """With running statistics and affine weights as after some training."""
    generator = torch.Generator().manual_seed(0)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d):
            for tensor in (part.running_var, part.weight):
                tensor.data = 0.5 + torch.rand(tensor.shape, generator=generator)
            for tensor in (part.running_mean, part.bias):
                tensor.data = 0.2 * torch.randn(tensor.shape, generator=generator)
    return network


@pytest.mark.parametrize("recipe", ["s3d", "s3dg"])
def test_a_folded_network_has_no_batch_norms_and_equal_features(recipe):
    encoder = trained(build(recipe, size="debug").objective.encoder).train()
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    x = torch.randn(2, 3, 16, 32, 32)
    fast = folded(encoder, x[:1, :, :8])
    assert not any(isinstance(part, nn.BatchNorm3d) for part in fast.modules())
    assert encoder.training
    assert all(torch.equal(state[name], value) for name, value in encoder.state_dict().items())
    expected = encoder.eval()(x).x.detach()
    torch.testing.assert_close(fast(x).x, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert not torch.equal(fast(x).x, torch.zeros_like(expected))


def test_channels_last_and_compiled_networks_compute_the_same():
    encoder = trained(build("s3d", size="debug").objective.encoder).eval()
    x = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        expected = encoder(x).x
        last = channels_last(folded(encoder, x))
        assert last.stem.conv2.conv.weight.is_contiguous(memory_format=torch.channels_last_3d)
        torch.testing.assert_close(last(x).x, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        for block in last.blocks:
            block.compile(backend="aot_eager")
        torch.testing.assert_close(last(x).x, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_gradients_lie_in_memory_as_weights_do():
    """Otherwise processes that add them up copy each of them, and warn of it."""
    encoder = channels_last(build("resnet", size="debug").objective.encoder, (2,))
    encoder(torch.randn(2, 3, 32, 32)).x.sum().backward()
    weights = [part.weight for part in encoder.modules() if isinstance(part, nn.Conv2d)]
    assert {weight.shape[-1] for weight in weights} >= {1, 3}
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert all(weight.grad is not None and weight.grad.stride() == weight.stride() for weight in weights)
    clips = build("s3d", size="debug").objective.encoder
    before = [parameter.stride() for parameter in clips.parameters()]
    assert [parameter.stride() for parameter in channels_last(clips, (2,)).parameters()] == before


class Twice(nn.Module):
    """A convolution whose result goes around the norm as well."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x):
        x = self.conv(x)
        return x + self.norm(x)


def test_what_cannot_be_folded_is_refused_or_left():
    x = torch.randn(2, 2, 4, 4)
    with pytest.raises(ValueError, match="used twice"):
        folded(trained(Twice()), x)
    alone = trained(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(2)))
    assert isinstance(folded(alone, x)[1], nn.BatchNorm2d)
    shared = nn.Conv2d(2, 2, 1)
    several = trained(nn.Sequential(shared, nn.BatchNorm2d(2), shared, nn.BatchNorm2d(2)))
    torch.testing.assert_close(folded(several, x)(x), several.eval()(x))
