"""Pre-training steps of ours and of other packages' networks of the same build."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unveil.encoders import ViT
from unveil.flags import build
from unveil.masking import Mask
from unveil.tokens import Tokens
from unveil.training.optimizer import make

RATE = 1e-5


class Step(NamedTuple):
    """One contestant: its parameters and its loss."""

    network: nn.Module
    loss: Callable[[], Tensor]
    optimizer: torch.optim.Optimizer

    def __call__(self) -> None:
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


class AllTokens(nn.Module):
    """A ViT that computes as many tokens as if masked patches were replaced, and hands on the visible ones."""

    def __init__(self, encoder: ViT):
        super().__init__()
        self.encoder = encoder

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name == "encoder" else getattr(self.encoder, name)

    def forward(self, x: Tensor, mask: Mask | None = None, layer: int | None = None) -> Tokens:
        tokens = self.encoder(x, layer=layer)
        return tokens if mask is None else tokens.gather(mask.visible)


class Network(NamedTuple):
    """What is compared, at its size and at one that only shows that everything runs."""

    recipe: str
    flags: dict[str, Any]
    shape: tuple[int, ...]
    batch: int


IMAGE, CLIP = (3, 224, 224), (3, 16, 224, 224)
TINY = {
    "videomae": {"size": "debug", "frames": 4, "crop": 32},
    "mae": {"size": "debug", "crop": 32},
    "mae_st": {"size": "debug", "frames": 4, "crop": 32},
}
PEERS = {
    "videomae S": Network("videomae", {"size": "S"}, CLIP, 4),
    "mae B": Network("mae", {"size": "B"}, IMAGE, 32),
}
SAVED = {
    "mae L": Network("mae", {"size": "L"}, IMAGE, 4),
    "mae_st L": Network("mae_st", {"size": "L"}, CLIP, 1),
    "videomae B": Network("videomae", {"size": "B"}, CLIP, 1),
}


CPU = torch.device("cpu")


def batch_of(network: Network, device: torch.device = CPU) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    key = "image" if len(network.shape) == 3 else "video"
    x = torch.randn(network.batch, *network.shape, generator=generator)
    return {key: x.to(device), "seed": torch.randint(2**62, (network.batch,), generator=generator).to(device)}


def ours(network: Network, every_token: bool = False, device: torch.device = CPU) -> Step:
    recipe = build(network.recipe, **network.flags)
    objective: Any = recipe.objective.train().to(device)
    if every_token:
        objective.encoder = AllTokens(objective.encoder)
    batch = batch_of(network, device)
    return Step(objective, lambda: objective(batch)["loss"], make(objective, recipe.optimizer, device))


def _adamw(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.05, fused=True)


def transformers_videomae(network: Network, device: torch.device = CPU) -> Step:
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    encoder: Any = build(network.recipe, **network.flags).objective
    width, depth, heads = _sizes(encoder.encoder)
    decoder_width, decoder_depth, decoder_heads = _sizes(encoder.decoder)
    _, frames, crop, _ = network.shape
    config = VideoMAEConfig(
        image_size=crop, num_frames=frames, hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads,
        intermediate_size=4 * width, decoder_hidden_size=decoder_width, decoder_num_hidden_layers=decoder_depth,
        decoder_num_attention_heads=decoder_heads, decoder_intermediate_size=4 * decoder_width, norm_pix_loss=True,
        attn_implementation="sdpa",
    )  # fmt: skip
    model: Any = VideoMAEForPreTraining(config)
    model.train().to(device)
    x = batch_of(network, device)["video"].transpose(1, 2).contiguous()
    places, layers = (crop // 16) ** 2, frames // 2

    def loss() -> Tensor:
        masked = torch.rand(network.batch, places, device=device).argsort(1) >= places - int(0.9 * places)
        return model(x, bool_masked_pos=masked.repeat(1, layers)).loss

    return Step(model, loss, _adamw(model))


def transformers_mae(network: Network) -> Step:
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    objective: Any = build(network.recipe, **network.flags).objective
    width, depth, heads = _sizes(objective.encoder)
    decoder_width, decoder_depth, decoder_heads = _sizes(objective.decoder)
    config = ViTMAEConfig(
        image_size=network.shape[-1], hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads,
        intermediate_size=4 * width, decoder_hidden_size=decoder_width, decoder_num_hidden_layers=decoder_depth,
        decoder_num_attention_heads=decoder_heads, decoder_intermediate_size=4 * decoder_width, norm_pix_loss=True,
        attn_implementation="sdpa",
    )  # fmt: skip
    model: Any = ViTMAEForPreTraining(config).train()
    x = batch_of(network)["image"]
    return Step(model, lambda: model(x).loss, _adamw(model))


def lightly_mae(network: Network) -> Step:
    """As in lightly's example of MAE."""
    from lightly.models import utils
    from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM
    from timm.models.vision_transformer import VisionTransformer

    objective: Any = build(network.recipe, **network.flags).objective
    width, depth, heads = _sizes(objective.encoder)
    decoder_width, decoder_depth, decoder_heads = _sizes(objective.decoder)
    crop = network.shape[-1]
    vit = VisionTransformer(crop, 16, embed_dim=width, depth=depth, num_heads=heads, num_classes=0)
    places = (crop // 16) ** 2
    model = nn.ModuleDict(
        {
            "encoder": MaskedVisionTransformerTIMM(vit=vit),
            "decoder": MAEDecoderTIMM(
                num_patches=places, patch_size=16, embed_dim=width, decoder_embed_dim=decoder_width,
                decoder_depth=decoder_depth, decoder_num_heads=decoder_heads, mlp_ratio=4.0,
            ),
        }
    ).train()  # fmt: skip
    encoder: Any = model["encoder"]
    decoder: Any = model["decoder"]
    x = batch_of(network)["image"]

    def loss() -> Tensor:
        count = x.shape[0]
        keep, mask = utils.random_token_mask(size=(count, encoder.sequence_length), mask_ratio=0.75, device=x.device)
        encoded = decoder.embed(encoder.encode(images=x, idx_keep=keep))
        full = utils.repeat_token(decoder.mask_token, (count, encoder.sequence_length))
        full = utils.set_at_index(full, keep, encoded.type_as(full))
        predicted = decoder.predict(utils.get_at_index(decoder.decode(full), mask))
        target = utils.get_at_index(utils.patchify(x, 16), mask - 1)
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        return nn.functional.mse_loss(predicted, target)

    return Step(model, loss, _adamw(model))


def _sizes(part: Any) -> tuple[int, int, int]:
    """Width, blocks and heads of a transformer of ours."""
    attention = part.blocks[0].attn
    return part.blocks[0].norm1.normalized_shape[0], len(part.blocks), attention.heads


CONTESTANTS: dict[str, dict[str, Callable[[Network], Step]]] = {
    "videomae S": {"transformers": transformers_videomae},
    "mae B": {"transformers": transformers_mae, "lightly": lightly_mae},
}
