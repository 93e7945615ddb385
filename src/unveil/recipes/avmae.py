"""AV-MAE: audiovisual masked autoencoders.
Georgescu, Fonseca, Ionescu, Lucic, Schmid, Arnab. ICCV 2023. arXiv:2212.05922

Hide 90 % of a clip's tubelets and 70 % of its sound's filter bank. An encoder for each looks at what is left; in their last two
layers the tokens of both meet. One decoder, for picture and sound by turns, predicts what was hidden.

Published: AudioSet fine-tuned 51.8 mAP with sound and sight (46.6 and 31.1 with one alone), VGGSound 65.0 % top-1 (57.2, 50.3), ViT-L.
    unveil pretrain avmae --data clips/ --out runs/av
    unveil finetune runs/av --data labelled/ --out runs/av-ft
    unveil finetune runs/av --data labelled/ --use audio --out runs/heard
The numbers are those of the released AudioSet configuration (16 frames, 4 apart, in 10 s of sound) and, of fine-tuning,
VGGSound's. Where this differs from them: the release fine-tunes another network (MBT, with bottlenecks from layer 16 on), here
it is the one that was pre-trained; its SpecAugment and colour jitter are not part of it, and it mixes filter banks. Those are
Kaldi's, normalised as Audio-MAE's, and 10 s are 63 patches, the last one filled with silence, where the release has 62.
"""

from dataclasses import replace
from typing import Literal, NamedTuple

from torch import nn

from unveil.data import Audiovisual, Dense, HorizontalFlip, RandomShortSideCrop, Sound, Video, centred, narrowed
from unveil.data.audiovisual import Missing
from unveil.decoders import SharedDecoder, StreamEmbedding, TransformerDecoder
from unveil.encoders import Encoder, Fusion, Size, ViT, dimensions
from unveil.errors import UserError
from unveil.heads import LinearHead
from unveil.losses import classification, mse
from unveil.masking import Random
from unveil.objectives import Each, FusedAutoencoder, Supervised
from unveil.recipe import Data, Loader, Optimizer, Recipe, Schedule
from unveil.targets import Pixels
from unveil.tokens import FilterBank, Patchify, Positions, Spectrogram, SumPositions, Tokenizer

SMALL = {"frames": 8, "stride": 8, "crop": 96, "seconds": 2.0}
PRESETS = {
    "small": {
        "avmae": {
            "size": "Ti",
            **SMALL,
            "schedule.epochs": 200,
            "schedule.warmup": 10,
            "schedule.batch": 32,
            "loader.batch": 16,
            "optimizer.lr": 4e-3,
        },
        "finetune": {
            "size": "Ti",
            **SMALL,
            "schedule.epochs": 40,
            "schedule.warmup": 2,
            "schedule.batch": 16,
            "loader.batch": 16,
            "optimizer.kind": "adamw",
            "optimizer.lr": 8e-3,
            "drop_path": 0.1,
            "sample.clips": 2,
        },
    },
}

#: Of the colours, and of their deviation: pixels from -1 to 1.
MEAN = STD = (0.5, 0.5, 0.5)
Use = Literal["both", "video", "audio"]
PositionKind = Literal["flat", "sincos"]


class Stream(NamedTuple):
    """How a stream is cut, and the grid of a sample."""

    cut: Tokenizer
    patchify: Patchify
    grid: tuple[int, ...]


def streams(signal: Audiovisual, crop: int, patch: int, tubelet: int, bins: int, audio_patch: int) -> dict[str, Stream]:
    """Picture and sound, by their keys."""
    tubelets, squares = Patchify(tubelet, patch, patch, channels=3), Patchify(audio_patch, audio_patch, channels=1)
    heard = Spectrogram(FilterBank(signal.sound.rate, bins), squares)
    return {
        "video": Stream(tubelets, tubelets, tubelets.grid((signal.video.clip.frames, crop, crop))),
        "audio": Stream(heard, squares, heard.grid((1, signal.sound.length))),
    }


def stem(size: Size, depth: int, stream: Stream, positions: PositionKind, drop_path: float = 0.0) -> Encoder:
    """A stream's own encoder, of so many blocks."""
    width, _, heads = dimensions(size)
    return ViT(
        f"{width}x{depth}x{heads}",
        stream.cut,
        Positions(stream.grid, width, positions),
        class_token=False,
        drop_path=drop_path,
    )


def avmae(
    size: Size = "B",
    ratio: float = 0.9,
    audio_ratio: float = 0.7,
    frames: int = 16,
    stride: int = 4,
    crop: int = 224,
    patch: int = 16,
    tubelet: int = 2,
    seconds: float = 10.0,
    rate: int = 16000,
    bins: int = 128,
    audio_patch: int = 16,
    fusion_layers: int = 2,
    positions: PositionKind = "flat",
    decoder_width: int | None = None,
    decoder_depth: int = 4,
    decoder_heads: int | None = None,
    stream_embedding: bool = False,
    normalize: Literal["patch"] | None = None,
    missing: Missing = "drop",
) -> Recipe:
    """Audiovisual MAE: predict 90 % of a clip and 70 % of its sound from the rest of both.

    Args:
        size: of the encoders.
        ratio: share of a clip's tubelets that is hidden.
        audio_ratio: share of its sound's patches that is hidden.
        frames: of a clip.
        stride: between the frames of a clip, in frames of the file.
        crop: side of the clip, in pixels.
        patch: side of a tubelet, in pixels.
        tubelet: length of a tubelet, in frames.
        seconds: the sound of a clip lasts, about the middle of its frames.
        rate: samples of sound in a second; files of other rates are resampled.
        bins: of the mel filter bank.
        audio_patch: side of a patch of it, in frames of 10 ms and in bins.
        fusion_layers: how many of the encoders' last layers are joint ones.
        positions: one sinusoid over all tokens of a stream in order, as published, or sines and cosines of each axis.
        decoder_width: width of the decoder's tokens; half the encoder's unless given.
        decoder_depth: blocks of the decoder.
        decoder_heads: heads of the decoder; half the encoder's unless given.
        stream_embedding: tell the decoder by a learned vector which stream it decodes; the released configuration does not.
        normalize: subtract each patch's mean and divide by its deviation, or predict plain values, as published.
        missing: what becomes of clips without a sound track: drop leaves them out, blank takes silence.
    """
    signal = Audiovisual(Video(Dense(frames, stride)), Sound(seconds, rate), missing)
    width, _, heads = dimensions(size)
    found = streams(signal, crop, patch, tubelet, bins, audio_patch)
    before = _own_layers(size, fusion_layers)
    decoder_width, decoder_heads = decoder_width or width // 2, decoder_heads or heads // 2

    def places(stream: Stream) -> nn.Module:
        grid = Positions(stream.grid, decoder_width, positions)
        return SumPositions(grid, StreamEmbedding(decoder_width)) if stream_embedding else grid

    ends = {
        key: TransformerDecoder(
            width, stream.patchify.width, places(stream), width=decoder_width, depth=0, heads=decoder_heads, shared=True
        )
        for key, stream in found.items()
    }
    plain = centred(crop, crop)
    return Recipe(
        objective=FusedAutoencoder(
            encoder=Fusion(
                {key: stem(size, before, stream, positions) for key, stream in found.items()},
                fusion_layers,
                heads,
            ),
            decoder=SharedDecoder(ends, decoder_width, decoder_depth, decoder_heads),
            maskers={"video": Random(ratio), "audio": Random(audio_ratio)},
            targets=Each(**{key: Pixels(stream.patchify, key, normalize) for key, stream in found.items()}),
            loss=mse,
            weights={"video": 0.5, "audio": 0.5},
        ),
        data=Data(
            signal,
            transform=[RandomShortSideCrop(crop, crop * 256 // 224, crop * 256 // 224), HorizontalFlip()],
            evaluation=plain,
            mean=MEAN,
            std=STD,
        ),
        optimizer=Optimizer(lr=3e-4, betas=(0.9, 0.95), weight_decay=0.05),
        schedule=Schedule(epochs=120, warmup=4, batch=512),
        loader=Loader(batch=16),
    )


def finetune(
    size: Size = "B",
    num_classes: int = 309,
    multi_label: bool = False,
    use: Use = "both",
    frames: int = 32,
    stride: int = 2,
    crop: int = 224,
    patch: int = 16,
    tubelet: int = 2,
    seconds: float = 8.0,
    rate: int = 16000,
    bins: int = 128,
    audio_patch: int = 16,
    fusion_layers: int = 2,
    positions: PositionKind = "flat",
    drop_path: float = 0.3,
    flip: bool = True,
    missing: Missing = "drop",
) -> Recipe:
    """Audiovisual MAE's encoders, fine-tuned together or one alone, with the settings of the released VGGSound configuration.

    Args:
        size: of the encoders.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        use: what is classified: the clip with its sound (both), its picture alone (video), or its sound alone (audio); then
            files of sound will do.
        frames: of a clip.
        stride: between the frames of a clip, in frames of the file.
        crop: side of the clip, in pixels.
        patch: side of a tubelet, in pixels.
        tubelet: length of a tubelet, in frames.
        seconds: the sound of a clip lasts, about the middle of its frames.
        rate: samples of sound in a second; files of other rates are resampled.
        bins: of the mel filter bank.
        audio_patch: side of a patch of it, in frames of 10 ms and in bins.
        fusion_layers: how many of the encoders' last layers are joint ones.
        positions: as in pre-training.
        drop_path: stochastic depth.
        flip: mirror clips at random; turn it off where left and right mean something.
        missing: what becomes of clips without a sound track: drop leaves them out, blank takes silence.
    """
    signal = Audiovisual(Video(Dense(frames, stride)), Sound(seconds, rate), missing)
    _, depth, heads = dimensions(size)
    found = streams(signal, crop, patch, tubelet, bins, audio_patch)
    before = _own_layers(size, fusion_layers)
    rates = [drop_path * layer / max(1, depth - 1) for layer in range(depth)]
    encoder = Fusion(
        {
            key: stem(size, before, stream, positions, rates[before - 1])
            for key, stream in found.items()
            if use in (key, signal.key)
        },
        fusion_layers,
        heads,
        norm="pooled",
        drop_path=rates[before:],
    )
    return Recipe(
        objective=Supervised(
            key=use,
            encoder=encoder,
            head=LinearHead(encoder.width, num_classes, std=2e-5),
            loss=classification(multi_label, smoothing=0.3),
        ),
        data=replace(narrowed(seen(signal, crop, flip), use), mixup=0.5),
        optimizer=Optimizer(kind="sgd", lr=3.2, weight_decay=0.0, nesterov=False, layer_decay=0.75),
        schedule=Schedule(epochs=50, warmup=2.5, batch=64),
        loader=Loader(batch=8),
        clip_gradient=1.0,
    )


def _own_layers(size: Size, fusion_layers: int) -> int:
    """How many layers each encoder has for itself.

    Raises:
        UserError: none.
    """
    depth = dimensions(size).depth
    if not 0 < fusion_layers < depth:
        raise UserError(
            f"--fusion-layers {fusion_layers}: of the {depth} layers of size {size} at least 1, and not all."
        )
    return depth - fusion_layers


def seen(signal: Audiovisual, crop: int, flip: bool) -> Data:
    """What fine-tuning looks at, as published: short sides of 0.9 to 1.33 times 256/224 of the crop; of a test file four clips."""
    low, high = (max(crop, round(crop * 256 / 224 * factor)) for factor in (0.9, 1.33))
    return Data(
        signal,
        transform=[RandomShortSideCrop(crop, low, high), *[HorizontalFlip()] * flip],
        evaluation=centred(crop, crop),
        mean=MEAN,
        std=STD,
        clips=4,
    )
