"""Audio-MAE: masked autoencoders that listen.
Huang, Xu, Li, Baevski, Auli, Galuba, Metze, Feichtenhofer. NeurIPS 2022. arXiv:2207.06405

Hide 80 % of the patches of a log-mel filter bank; encode the rest with a ViT, and let a decoder, whose tokens attend to their
neighbours in time and frequency, predict the hidden ones, normalised patch by patch. Afterwards the encoder alone is kept.

Published: AudioSet fine-tuned 47.3 mAP on 2M and 37.1 on 20K files; ESC-50 94.1, Speech Commands V2 98.3, V1 96.9,
VoxCeleb 94.8 % (ViT-B; of the four last the authors of this library have seen no released log).
    unveil pretrain audiomae --data sounds/ --out runs/sound
    unveil finetune runs/sound --data labelled/ --out runs/sound-ft
The numbers are those of the released scripts. Where this differs from them: positions are those of the grid (--positions
transposed: the release's, whose table was made for time and frequency exchanged; its checkpoints have them); a short file is
followed by silence, there by log energies of 0; the perceptron of the decoder's relative positions has no dropout, which there
is drawn for a whole batch. On AudioSet's 2M files the release draws 200 000 an epoch, balanced; here an epoch is all files.
"""

from typing import Any, Literal, NamedTuple

from unveil.data import RandomLoudness, RandomRoll, Sound
from unveil.decoders import TransformerDecoder, WindowDecoder
from unveil.encoders import Dimensions, Size, ViT, dimensions
from unveil.heads import LinearHead
from unveil.layers import SpecAugment
from unveil.losses import classification, mse
from unveil.masking import Random, Structured
from unveil.objectives import MaskedAutoencoder, Supervised
from unveil.recipe import Data, Loader, Optimizer, Recipe, Schedule
from unveil.targets import Pixels
from unveil.tokens import AUDIOSET_MEAN, AUDIOSET_STD, FilterBank, Patchify, Positions, Spectrogram

#: Of short sounds of one voice, such as words, half a second or a little more: `--seconds` says how long others are.
SMALL = {
    "size": "nano",
    "seconds": 0.64,
    "rate": 8000,
    "bins": 64,
    "patch": 8,
    "mean": -9.9,
    "std": 5.3,
    "augment": False,
    "schedule.batch": 32,
    "loader.batch": 32,
    "optimizer.lr": 8e-3,
    "optimizer.weight_decay": 0.05,
}
PRESETS = {
    "small": {
        "audiomae": {**SMALL, "schedule.epochs": 24, "schedule.warmup": 2},
        "finetune": {
            **SMALL,
            "drop_path": 0.0,
            "schedule.epochs": 40,
            "schedule.warmup": 4,
            "schedule.min_lr": 0.0,
            "optimizer.layer_decay": 1.0,
        },
    },
}

#: The decoder of windows and the global one, of width, blocks and heads.
DECODERS = {"window": Dimensions(512, 16, 16), "global": Dimensions(512, 8, 16)}
SMALL_DECODERS = {"debug": Dimensions(32, 2, 2), "nano": Dimensions(64, 2, 4)}

#: Of 1024 frames and 128 bins, what SpecAugment blots out at most.
BLOTTED_FRAMES, BLOTTED_BINS = 192 / 1024, 48 / 128

PositionKind = Literal["sincos", "transposed"]


class Finetuning(NamedTuple):
    """Published settings; rates are for 256 samples.

    On 2M files an epoch of the release was 200 000 draws, balanced among the classes, and there were 100, of which 10 warm up: ten
    times all files.
    """

    epochs: int
    warmup: int
    batch: int
    lr: float
    min_lr: float


FINETUNING = {"2M": Finetuning(10, 1, 256, 2e-4, 1e-6), "20K": Finetuning(60, 4, 32, 1e-3, 8e-6)}


def _spectrogram(
    sound: Sound, bins: int, patch: int, mean: float, std: float, augment: SpecAugment | None = None
) -> tuple[Spectrogram, tuple[int, ...]]:
    """The tokenizer, and the grid of a sample."""
    tokenizer = Spectrogram(FilterBank(sound.rate, bins), Patchify(patch, patch, channels=1), mean, std, augment)
    return tokenizer, tokenizer.grid((1, sound.length))


def audiomae(
    size: Size = "B",
    ratio: float = 0.8,
    seconds: float = 10.24,
    rate: int = 16000,
    bins: int = 128,
    patch: int = 16,
    masking: Literal["random", "structured"] = "random",
    time_ratio: float = 0.7,
    frequency_ratio: float = 0.3,
    positions: PositionKind = "sincos",
    decoder: Literal["window", "global"] = "window",
    decoder_width: int | None = None,
    decoder_depth: int | None = None,
    decoder_heads: int | None = None,
    normalize: Literal["patch"] | None = "patch",
    mean: float = AUDIOSET_MEAN,
    std: float = AUDIOSET_STD,
    augment: bool = True,
) -> Recipe:
    """Audio-MAE: predict 80 % of a filter bank's patches from the rest.

    Args:
        size: of the encoder.
        ratio: share of patches that is hidden at random.
        seconds: a sample lasts.
        rate: samples of the waveform in a second; files of other rates are resampled.
        bins: of the mel filter bank.
        patch: side of a patch, in frames of 10 ms and in bins.
        masking: hide any patches (random), or stretches of time and bands of frequency (structured).
        time_ratio: share of the stretches of time that is hidden, where masking is structured.
        frequency_ratio: share of the bands of frequency that is hidden, where masking is structured.
        positions: sines and cosines of time and frequency, or as the release has them (transposed).
        decoder: its tokens attend within shifted windows of 4 × 4, or to all (global).
        decoder_width: width of the decoder's tokens; 512 (debug 32, nano 64) unless given.
        decoder_depth: blocks of the decoder; 16, global 8 (debug and nano 2), unless given.
        decoder_heads: attention heads of the decoder; 16 (debug 2, nano 4) unless given.
        normalize: subtract each patch's mean and divide by its deviation, or predict plain energies.
        mean: of the filter banks; published -4.268 for AudioSet, -6.627 for ESC-50, -6.846 for Speech Commands.
        std: deviation of the filter banks; published 4.569, 5.358 and 5.565.
        augment: roll waveforms in time and make them louder or softer, as published.
    """
    sound = Sound(seconds, rate)
    tokenizer, grid = _spectrogram(sound, bins, patch, mean, std)
    width = dimensions(size).width
    small = SMALL_DECODERS.get(size, DECODERS[decoder])
    decoder_width = decoder_width or small.width
    places = Positions(grid, decoder_width, positions)
    sizes: dict[str, Any] = {"depth": decoder_depth or small.depth, "heads": decoder_heads or small.heads}
    sizes["width"] = decoder_width
    return Recipe(
        objective=MaskedAutoencoder(
            key="audio",
            encoder=ViT(size, tokenizer, Positions(grid, width, positions)),
            decoder=(
                WindowDecoder(width, tokenizer.width, places, **sizes)
                if decoder == "window"
                else TransformerDecoder(width, tokenizer.width, places, **sizes, class_token="shared")
            ),
            masker=Random(ratio) if masking == "random" else Structured(time_ratio, frequency_ratio),
            target=Pixels(tokenizer.patchify, "audio", normalize=normalize),
            loss=mse,
        ),
        data=Data(sound, transform=[RandomRoll(), RandomLoudness()] if augment else [], mean=(), std=()),
        optimizer=Optimizer(lr=2e-4, betas=(0.9, 0.95), weight_decay=1e-4),
        schedule=Schedule(epochs=33, warmup=3, batch=512),
        loader=Loader(batch=32),
    )


def finetune(
    size: Size = "B",
    num_classes: int = 527,
    multi_label: bool = False,
    settings: Literal["2M", "20K"] = "2M",
    seconds: float = 10.24,
    rate: int = 16000,
    bins: int = 128,
    patch: int = 16,
    positions: PositionKind = "sincos",
    drop_time: float = 0.2,
    drop_frequency: float = 0.2,
    blot_frames: int | None = None,
    blot_bins: int | None = None,
    mean: float = AUDIOSET_MEAN,
    std: float = AUDIOSET_STD,
    drop_path: float = 0.1,
    augment: bool = True,
) -> Recipe:
    """Audio-MAE's encoder, fine-tuned as published: mean-pooled, on patches of which some stretches and bands are left out.

    Args:
        size: of the encoder.
        num_classes: taken from the data unless given.
        multi_label: a sample may have several labels; taken from the data unless given.
        settings: epochs, batch and rates as published for the 2M files of AudioSet (with --balance true), or for its 20K.
        seconds: a sample lasts.
        rate: samples of the waveform in a second; files of other rates are resampled.
        bins: of the mel filter bank.
        patch: side of a patch, in frames of 10 ms and in bins.
        positions: sines and cosines of time and frequency, or as the release has them (transposed).
        drop_time: share of the patches' stretches of time that is left out in training.
        drop_frequency: share of the patches' bands of frequency that is left out in training.
        blot_frames: SpecAugment blots out fewer frames than this, 0 for none; published 192 of 1024, the same share unless given.
        blot_bins: and fewer bins than this; published 48 of 128, the same share unless given.
        mean: of the filter banks; see `audiomae`.
        std: deviation of the filter banks.
        drop_path: stochastic depth.
        augment: roll waveforms in time, make them louder or softer, and mix half of them two by two, as published.
    """
    sound = Sound(seconds, rate)
    frames = sound.length // FilterBank(rate, bins).shift
    blot = SpecAugment(
        round(frames * BLOTTED_FRAMES) if blot_frames is None else blot_frames,
        round(bins * BLOTTED_BINS) if blot_bins is None else blot_bins,
        value=-mean / (2 * std),  # the release blots out before it normalises
    )
    tokenizer, grid = _spectrogram(sound, bins, patch, mean, std, blot)
    encoder = ViT(
        size,
        tokenizer,
        Positions(grid, dimensions(size).width, positions),
        norm="pooled",
        drop_path=drop_path,
    )
    published = FINETUNING[settings]
    return Recipe(
        objective=Supervised(
            key="audio",
            encoder=encoder,
            head=LinearHead(encoder.width, num_classes, std=2e-5),
            loss=classification(multi_label),
            masker=Structured(drop_time, drop_frequency) if drop_time or drop_frequency else None,
        ),
        data=Data(
            sound,
            transform=[RandomRoll(), RandomLoudness()] if augment else [],
            mean=(),
            std=(),
            mixup=10.0 if augment else 0.0,
            mixed=0.5,
        ),
        optimizer=Optimizer(lr=published.lr, weight_decay=5e-4, layer_decay=0.75),
        schedule=Schedule(
            epochs=published.epochs, warmup=published.warmup, batch=published.batch, min_lr=published.min_lr
        ),
        loader=Loader(batch=32),
    )
