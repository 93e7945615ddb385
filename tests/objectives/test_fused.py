"""Several streams hidden and predicted together: the losses by hand, masks, towers that share weights, two processes as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from two_processes import learn_what_one_learns
from unveil.decoders import SeparateDecoders, SharedDecoder, StreamEmbedding, TransformerDecoder
from unveil.encoders import Fusion, ViT, shown
from unveil.errors import UserError
from unveil.losses import mse
from unveil.masking import Mask, Random
from unveil.objectives import AlignedAutoencoder, Contrast, Each, FusedAutoencoder, MaskedAutoencoder
from unveil.objectives.fused import Asked
from unveil.targets import Contextual, Pixels
from unveil.tokens import Patchify, Positions, SumPositions

VIDEO, AUDIO = Patchify(2, 8, 8, channels=3), Patchify(8, 8, channels=1)
GRIDS = {"video": (2, 4, 4), "audio": (4, 2)}
CUTS = {"video": VIDEO, "audio": AUDIO}
RATIOS = {"video": 0.75, "audio": 0.5}


def stems(depth: int = 2, **options: Any) -> dict[str, ViT]:
    return {
        key: ViT(f"32x{depth}x2", CUTS[key], Positions(GRIDS[key], 32, "flat"), class_token=False, **options)
        for key in GRIDS
    }


def ends(key: str, shared: bool, embedding: bool = False) -> TransformerDecoder:
    places: nn.Module = Positions(GRIDS[key], 16, "flat")
    if embedding:
        places = SumPositions(places, StreamEmbedding(16))  # pyright: ignore[reportArgumentType]
    return TransformerDecoder(32, CUTS[key].width, places, width=16, depth=1, heads=2, shared=shared)


def parts() -> dict[str, Any]:
    return {
        "maskers": {key: Random(ratio) for key, ratio in RATIOS.items()},
        "targets": Each(**{key: Pixels(cut, key) for key, cut in CUTS.items()}),
        "loss": mse,
        "weights": {"video": 0.5, "audio": 0.25},
    }


def plain(seed: int = 0, fusion: int = 1, embedding: bool = False) -> FusedAutoencoder:
    torch.manual_seed(seed)
    decoder = SharedDecoder({key: ends(key, True, embedding) for key in GRIDS}, 16, 1, 2)
    return FusedAutoencoder(Fusion(stems(), fusion, 2), decoder, **parts())


def aligned(seed: int = 0, inter: float = 0.1, intra: float = 0.01) -> AlignedAutoencoder:
    torch.manual_seed(seed)
    decoder = SeparateDecoders({key: ends(key, False) for key in GRIDS})
    return AlignedAutoencoder(
        Fusion(stems(), 1, 2), decoder, **parts(), width=8, inter=Contrast(0.1, inter), intra=Contrast(1.0, intra)
    )


def batch(rows: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return {
        "video": torch.randn(rows, 3, 4, 32, 32, generator=generator),
        "audio": torch.randn(rows, 1, 32, 16, generator=generator),
        "seed": torch.randint(2**62, (rows,), generator=generator),
    }


# ---- the encoder


def test_the_joint_blocks_see_all_streams_and_give_each_its_own_back() -> None:
    """By hand: each stem, one sequence of both, the joint blocks, a norm; cut apart again."""
    torch.manual_seed(0)
    fusion, given = Fusion(stems(), 2, 2).eval(), batch()
    alone = [stem(given[key]) for key, stem in fusion.stems.items()]
    sequence = torch.cat([tokens.x for tokens in alone], dim=1)
    for block in fusion.blocks:
        sequence = block(sequence)
    sequence = functional.layer_norm(sequence, (32,), fusion.norm.weight, fusion.norm.bias, 1e-6)
    tokens = fusion(given)
    torch.testing.assert_close(tokens.x, sequence)
    assert tokens.grid == (32 + 8,)
    assert tokens.coords[0, :, 0].tolist() == list(range(40))
    video, audio = tokens.stages[-1]
    assert video.grid == GRIDS["video"]
    assert audio.grid == GRIDS["audio"]
    torch.testing.assert_close(video.x, sequence[:, :32])
    torch.testing.assert_close(audio.x, sequence[:, 32:])
    torch.testing.assert_close(fusion.pool(tokens), (video.x.mean(1) + audio.x.mean(1)) / 2)
    for stage, own in zip(tokens.stages[0], alone, strict=True):
        torch.testing.assert_close(stage.x, own.x)


def test_streams_meet_only_in_the_joint_blocks() -> None:
    torch.manual_seed(0)
    fusion, given = Fusion(stems(), 1, 2).eval(), batch()
    other = given | {"audio": given["audio"] + 1}
    for layer, same in ((1, True), (2, True), (3, False), (None, False)):
        one, two = (fusion(x, layer=layer).stages[-1][0].x for x in (given, other))
        assert torch.equal(one, two) is same, layer
    assert torch.equal(fusion(given).stages[0][0].x, fusion(other).stages[0][0].x)


def test_a_stream_alone_shares_the_weights_and_needs_no_other() -> None:
    fusion, given = Fusion(stems(), 1, 2).eval(), batch()
    for key in GRIDS:
        part = fusion.only(key)
        assert part.streams == (key,)
        assert {id(p) for p in part.parameters()} < {id(p) for p in fusion.parameters()}
        tokens = part({key: given[key]})
        assert tokens.grid == (torch.Size(GRIDS[key]).numel(),)
        torch.testing.assert_close(tokens.x, fusion({key: given[key]}).x)
        torch.testing.assert_close(tokens.x, part(shown(part, given, key)).x)
    with pytest.raises(ValueError, match="none of the streams video, audio is given"):
        fusion({"text": given["audio"]})


def test_layers_are_counted_through_stems_and_joint_blocks() -> None:
    fusion = Fusion(stems(), 2, 2)
    assert fusion.depth == 4
    found = {fusion.layer_of(name) for name, _ in fusion.named_parameters()}
    assert found == {0, 1, 2, 3, 4, 5}
    assert fusion.layer_of("stems.audio.blocks.1.norm1.weight") == 2
    assert fusion.layer_of("blocks.1.norm1.weight") == 4
    assert fusion.layer_of("norm.weight") == 5


def test_stems_of_different_widths_cannot_meet() -> None:
    other = ViT("64x2x2", AUDIO, Positions(GRIDS["audio"], 64, "flat"), class_token=False)
    with pytest.raises(ValueError, match="one width and one depth"):
        Fusion({**stems(), "audio": other}, 1, 2)


def test_class_tokens_keep_their_places() -> None:
    """A stem with a class token: it meets the others and comes back as its own stream's."""
    made = stems()
    made["video"] = ViT("32x2x2", VIDEO, Positions(GRIDS["video"], 32, "flat"))
    fusion, given = Fusion(made, 1, 2).eval(), batch()
    tokens = fusion(given)
    video, audio = tokens.stages[-1]
    assert tokens.prefix is not None
    assert video.prefix is not None
    assert audio.prefix is None
    torch.testing.assert_close(video.prefix, tokens.prefix)
    assert tokens.sequence().shape[1] == 1 + 40


# ---- Audiovisual MAE


@pytest.mark.parametrize("embedding", [False, True])
def test_the_loss_by_hand(embedding: bool) -> None:
    """Gather by Python loops what is visible; encode it; decode each stream by itself; compare patch by patch."""
    network, given = plain(embedding=embedding).eval(), batch(3)
    masks = network.masked(given)
    expected = torch.zeros(())
    encoded, places = {}, {}
    for key, stem in network.encoder.stems.items():
        raw, positions = CUTS[key](given[key]), stem.positions.table
        rows = []
        for b in range(3):
            seen = masks[key].visible[b].tolist()
            rows.append(torch.stack([stem.embed(raw.x[b, i]) + positions[i] for i in seen]))
        x = torch.stack(rows)
        for block in stem.blocks:
            x = block(x)
        encoded[key], places[key] = stem.norm(x), positions
    joint = torch.cat([encoded["video"], encoded["audio"]], dim=1)
    for block in network.encoder.blocks:
        joint = block(joint)
    joint = network.encoder.norm(joint)
    for key, x in zip(GRIDS, joint.split([encoded["video"].shape[1], encoded["audio"].shape[1]], dim=1), strict=True):
        end = network.decoder.ends[key]
        positions = end.positions.parts[0] if embedding else end.positions
        added = end.positions.parts[1].token if embedding else torch.zeros(16)
        total = torch.zeros(())
        for b in range(3):
            seen, hidden = masks[key].visible[b].tolist(), masks[key].masked[b].tolist()
            row = [end.embed(x[b, n]) + positions.table[i] + added for n, i in enumerate(seen)]
            row += [end.mask_token[0, 0] + positions.table[i] + added for i in hidden]
            sequence = torch.stack(row)[None]
            for block in network.decoder.blocks:
                sequence = block(sequence)
            answers = end.head(network.decoder.norm(sequence))[0, len(seen) :]
            raw = CUTS[key](given[key]).x[b]
            total = total + sum((answers[n] - raw[i]).square().mean() for n, i in enumerate(hidden)) / len(hidden)
        expected = expected + {"video": 0.5, "audio": 0.25}[key] * total / 3
    answer = network(given, mask=masks)
    torch.testing.assert_close(answer["loss"], expected)
    assert set(answer) == {"loss", "reconstruction_video", "reconstruction_audio"}


def test_each_stream_has_a_mask_of_its_own_seed() -> None:
    """The streams' grids are of one size here: from one seed both would be masked at the same places."""
    network, given = plain(), batch()
    given["audio"] = torch.randn(4, 1, 64, 32)  # as many patches as the video
    network.maskers = {key: Random(0.5) for key in GRIDS}
    masks = network.masked(given)
    assert not torch.equal(masks["video"].masked, masks["audio"].masked)
    later = network.masked(given | {"seed": given["seed"] + 1})
    assert torch.equal(later["video"].masked, masks["audio"].masked)


def test_a_mask_that_leaves_nothing_to_see_or_to_guess() -> None:
    """A mean over no token is no number: it is said before."""
    network = plain()
    for ratio, words in ((0.95, "leaves 0 of the audio's 8"), (0.0, "leaves 8 of the audio's 8")):
        network.maskers["audio"] = Random(ratio)
        with pytest.raises(UserError, match=words):
            network(batch())


def test_the_second_masks_are_other_ones() -> None:
    network, given = aligned(), batch()
    given["audio"] = torch.randn(4, 1, 64, 32)
    network.maskers = {key: Random(0.5) for key in GRIDS}
    masks = [mask.masked for mask in network.masked(given).values()]
    assert len(masks) == 4
    assert all(not torch.equal(a, b) for i, a in enumerate(masks) for b in masks[:i])


def test_towers_outlive_the_training_together_and_apart() -> None:
    network, given = plain().eval(), batch()
    towers = network.towers
    assert list(towers) == ["video", "audio", "both"]
    for key, tower in towers.items():
        assert tower.pool(tower(shown(tower, given, key))).shape == (4, 32)
    assert len(network.state_dict()) == len(set(network.state_dict()))
    tensors = [value.data_ptr() for value in network.state_dict().values() if value.numel()]
    assert len(tensors) == len(set(tensors)), "a tensor is saved twice"


def test_reconstructions_of_every_stream() -> None:
    network, given = plain().eval(), batch(2)
    assert network.drawable
    for key, seen in network.reconstruct(given).items():
        assert torch.equal(seen.input, given[key])
        assert seen.predicted.shape == given[key].shape
        hidden = CUTS[key](seen.masked).x.abs().sum(-1) == 0
        assert hidden.float().mean().item() == pytest.approx(RATIOS[key])


# ---- MAViL


def test_the_contrasts_by_hand() -> None:
    network, given = aligned().eval(), batch(5)
    masks = network.masked(given)
    views: dict[str, Tensor] = {}
    for name, mask in masks.items():
        key = name.split()[0]
        x = network.encoder.stems[key](given[key], mask).x.mean(1) @ network.projections[key].weight.T
        views[name] = x / x.norm(dim=1, keepdim=True)

    def nce(one: Tensor, other: Tensor, temperature: float) -> Tensor:
        rows = []
        for i in range(5):
            scores = torch.stack([(one[i] * other[j]).sum() / temperature for j in range(5)])
            rows.append(scores.logsumexp(0) - scores[i])
        return torch.stack(rows).mean()

    inter = (nce(views["video"], views["audio"], 0.1) + nce(views["audio"], views["video"], 0.1)) / 2
    intra = torch.stack(
        [
            nce(views[one], views[other], 1.0)
            for key in GRIDS
            for one, other in ((key, f"{key} again"), (f"{key} again", key))
        ]
    ).mean()
    answer = network(given, mask=masks)
    torch.testing.assert_close(answer["inter"], inter)
    torch.testing.assert_close(answer["intra"], intra)
    rest = 0.5 * answer["reconstruction_video"] + 0.25 * answer["reconstruction_audio"]
    torch.testing.assert_close(answer["loss"], rest + 0.1 * inter + 0.01 * intra)


def test_a_contrast_without_weight_is_left_out() -> None:
    network, given = aligned(inter=0.0, intra=0.0), batch()
    assert set(network.masked(given)) == {"video", "audio"}
    assert set(network(given)) == {"loss", "reconstruction_video", "reconstruction_audio"}


def test_towers_of_streams_are_their_own_encoders_in_the_shared_space() -> None:
    network, given = aligned().eval(), batch()
    for key in GRIDS:
        tower = network.towers[key]
        assert isinstance(tower, ViT)
        expected = network.projections[key](tower.pool(tower(given[key])))
        torch.testing.assert_close(network.features(key, given[key]), expected)


def test_a_teacher_says_what_it_makes_of_the_whole() -> None:
    """Its features after fusion, of all tokens, normalised one by one; it stays as it is, and is saved."""
    torch.manual_seed(1)
    teacher = Fusion(stems(drop_path=0.9), 1, 2)
    targets, given = Contextual(teacher).train(), batch(3)
    indices = {"video": torch.tensor([[0, 5], [1, 2], [3, 31]]), "audio": torch.tensor([[7], [0], [3]])}
    found = targets(given, {key: Asked(GRIDS[key], where) for key, where in indices.items()})
    for key, part in zip(GRIDS, teacher.eval()(given).stages[-1], strict=True):
        for b in range(3):
            for n, i in enumerate(indices[key][b].tolist()):
                x = part.x[b, i]
                expected = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()
                torch.testing.assert_close(found[key][b, n], expected)
    assert not any(p.requires_grad for p in targets.parameters())
    assert all(name.startswith("teacher.") for name in targets.state_dict())


def test_a_student_learns_from_features() -> None:
    torch.manual_seed(0)
    ends_ = {
        key: TransformerDecoder(32, 32, Positions(GRIDS[key], 16, "flat"), width=16, depth=1, heads=2) for key in GRIDS
    }
    network = FusedAutoencoder(
        Fusion(stems(), 1, 2), SeparateDecoders(ends_), **parts() | {"targets": Contextual(Fusion(stems(), 1, 2))}
    )
    assert not network.drawable
    with pytest.raises(TypeError, match="cannot be drawn"):
        network.reconstruct(batch())
    before = {name: value.clone() for name, value in network.targets.state_dict().items()}
    network(batch())["loss"].backward()
    torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1).step()
    assert all(torch.equal(before[name], value) for name, value in network.targets.state_dict().items())
    assert all(p.grad is None for p in network.targets.parameters())


def test_one_stream_of_one_is_a_masked_autoencoder() -> None:
    """With one stream and no joint block nothing but a last norm is new."""
    torch.manual_seed(0)
    stem = stems()["video"]
    decoder = ends("video", shared=False)
    both = FusedAutoencoder(
        Fusion({"video": stem}, 0, 2), SeparateDecoders({"video": decoder}), **parts() | {"weights": {"video": 1.0}}
    )
    both.encoder.norm = None
    single = MaskedAutoencoder("video", stem, decoder, Random(0.75), Pixels(VIDEO, "video"), mse)
    given = batch()
    mask: Mask = single.masked(given)
    assert torch.equal(both.masked(given)["video"].masked, mask.masked)
    torch.testing.assert_close(both(given)["loss"], single(given)["loss"])


# ---- several processes


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    """Loss and every gradient: samples of the other process are negatives, between streams and within each."""
    learn_what_one_learns(aligned, batch, tmp_path)
