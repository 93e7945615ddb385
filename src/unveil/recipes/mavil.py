"""MAViL: masked audio-video learners.
Huang, Sharma, Xu, Ryali, Fan, Li, Li, Ghosh, Malik, Feichtenhofer. NeurIPS 2023. arXiv:2212.08071

Hide 80 % of a clip and of its sound. An encoder for each, and one in which they meet; a decoder for each predicts what was
hidden. The two streams of a clip find one another among those of other clips, and so do two masked views of one stream. Then
once more: a student predicts not pixels and energies, but what the trained network makes of the whole clip (--teacher).

Published: AudioSet fine-tuned 53.3 mAP, VGGSound 67.1 % top-1 (ViT-B, sound and sight).
    unveil pretrain mavil --data clips/ --out runs/mavil1
    unveil pretrain mavil --data clips/ --teacher runs/mavil1 --out runs/mavil2
    unveil embed runs/mavil2 --data clips/ --use video --out index/
    unveil search index/ bark.wav
No code was released (the repository holds a README), and of the paper's text only the abstract was at hand. What follows is
from memory: encoders of 12 layers, 2 joint ones, decoders of 8 layers and a width of 512, the sound's with shifted windows;
80 % of both hidden; temperature 0.1 and weight 0.1 between streams, 1 and 0.01 within one; 20 epochs for each stage. What
memory does not hold is this library's choice: clips of 16 frames, 4 apart, in 10.24 s of sound; normalised patches; one linear
projection a stream, into a space of 512, for both contrasts, each the mean over its directions; a teacher's features normalised
token by token, without learned factors; Audio-MAE's optimiser. Fine-tuning sees what AV-MAE's does.
"""

from typing import Any, Literal

from unveil.borrowing import decided_by
from unveil.data import Audiovisual, Dense, HorizontalFlip, RandomResizedCrop, Sound, Video, centred, narrowed
from unveil.data.audiovisual import Missing
from unveil.decoders import SeparateDecoders, TransformerDecoder, WindowDecoder
from unveil.encoders import Dimensions, Fusion, Size, dimensions
from unveil.heads import LinearHead
from unveil.losses import classification, mse
from unveil.masking import Random
from unveil.objectives import AlignedAutoencoder, Contrast, Each, Supervised
from unveil.objectives.fused import Targets
from unveil.recipe import IMAGENET_MEAN, IMAGENET_STD, Borrowed, Data, Loader, Optimizer, Recipe, Schedule
from unveil.recipes.avmae import PositionKind, Stream, Use, seen, stem, streams
from unveil.targets import Contextual, Pixels
from unveil.tokens import Positions

SMALL = {"frames": 8, "stride": 8, "crop": 96, "seconds": 2.0}
PRESETS = {
    "small": {
        "mavil": {
            "size": "Ti",
            **SMALL,
            "decoder_width": 128,
            "decoder_depth": 4,
            "decoder_heads": 4,
            "shared_width": 128,
            "schedule.epochs": 200,
            "schedule.warmup": 10,
            "schedule.batch": 32,
            "loader.batch": 32,
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

DECODER, SMALL_DECODERS = Dimensions(512, 8, 16), {"debug": Dimensions(32, 2, 2), "nano": Dimensions(64, 2, 4)}


def mavil(
    size: Size = "B",
    ratio: float = 0.8,
    audio_ratio: float = 0.8,
    frames: int = 16,
    stride: int = 4,
    crop: int = 224,
    patch: int = 16,
    tubelet: int = 2,
    seconds: float = 10.24,
    rate: int = 16000,
    bins: int = 128,
    audio_patch: int = 16,
    fusion_layers: int = 2,
    positions: PositionKind = "sincos",
    decoder_width: int | None = None,
    decoder_depth: int | None = None,
    decoder_heads: int | None = None,
    shared_width: int = 512,
    inter_weight: float = 0.1,
    inter_temperature: float = 0.1,
    intra_weight: float = 0.01,
    intra_temperature: float = 1.0,
    normalize: Literal["patch"] | None = "patch",
    missing: Missing = "drop",
    teacher: str | None = None,
) -> Recipe:
    """MAViL: predict 80 % of a clip and of its sound from the rest of both, and find the one by the other.

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
        fusion_layers: joint layers, after those of the encoders.
        positions: sines and cosines of each axis, or one sinusoid over all tokens of a stream in order (flat).
        decoder_width: width of the decoders' tokens; 512 (debug 32, nano 64) unless given.
        decoder_depth: blocks of each decoder; 8 (debug and nano 2) unless given.
        decoder_heads: heads of the decoders; 16 (debug 2, nano 4) unless given.
        shared_width: of the space in which streams find one another.
        inter_weight: of the contrast between the streams; 0 leaves it out.
        inter_temperature: of that contrast.
        intra_weight: of the contrast between two views of a stream; 0 leaves it, and the second view, out.
        intra_temperature: of that contrast.
        normalize: subtract each patch's mean and divide by its deviation, or predict plain values; without a teacher.
        missing: what becomes of clips without a sound track: drop leaves them out, blank takes silence.
        teacher: run folder of a mavil, whose features are predicted; its network decides the size and the clips of this one.
    """
    signal = Audiovisual(Video(Dense(frames, stride)), Sound(seconds, rate), missing)
    found = streams(signal, crop, patch, tubelet, bins, audio_patch)
    encoder = _encoder(size, found, fusion_layers, positions)
    small = SMALL_DECODERS.get(size, DECODER)
    shape = {
        "width": decoder_width or small.width,
        "depth": decoder_depth or small.depth,
        "heads": decoder_heads or small.heads,
    }
    targets: Targets = Each(**{key: Pixels(stream.patchify, key, normalize) for key, stream in found.items()})
    widths = {key: stream.patchify.width for key, stream in found.items()}
    if teacher:
        targets = Contextual(_encoder(size, found, fusion_layers, positions))
        widths = dict.fromkeys(found, encoder.width)
    kinds = {"video": TransformerDecoder, "audio": WindowDecoder}
    decoders = {
        key: kinds[key](encoder.width, widths[key], Positions(stream.grid, shape["width"], positions), **shape)
        for key, stream in found.items()
    }
    return Recipe(
        objective=AlignedAutoencoder(
            encoder=encoder,
            decoder=SeparateDecoders(decoders),
            maskers={"video": Random(ratio), "audio": Random(audio_ratio)},
            targets=targets,
            loss=mse,
            weights={"video": 1.0, "audio": 1.0},
            width=shared_width,
            inter=Contrast(inter_temperature, inter_weight),
            intra=Contrast(intra_temperature, intra_weight),
        ),
        data=Data(
            signal,
            transform=[RandomResizedCrop(crop, scale=(0.5, 1.0), bicubic=True), HorizontalFlip()],
            evaluation=centred(crop, crop),
        ),
        optimizer=Optimizer(lr=2e-4, betas=(0.9, 0.95), weight_decay=0.05),
        schedule=Schedule(epochs=20, warmup=4, batch=512),
        loader=Loader(batch=32),
        borrowed=[Borrowed("targets.teacher", teacher, "encoder", "--teacher")] if teacher else [],
    )


def finetune(
    size: Size = "B",
    num_classes: int = 309,
    multi_label: bool = False,
    use: Use = "both",
    frames: int = 16,
    stride: int = 4,
    crop: int = 224,
    patch: int = 16,
    tubelet: int = 2,
    seconds: float = 10.24,
    rate: int = 16000,
    bins: int = 128,
    audio_patch: int = 16,
    fusion_layers: int = 2,
    positions: PositionKind = "sincos",
    drop_path: float = 0.1,
    flip: bool = True,
    missing: Missing = "drop",
) -> Recipe:
    """MAViL's encoders, fine-tuned together, with their joint layers, or one alone, without them.

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
        fusion_layers: joint layers, after those of the encoders; those of a stream alone have none.
        positions: as in pre-training.
        drop_path: stochastic depth.
        flip: mirror clips at random; turn it off where left and right mean something.
        missing: what becomes of clips without a sound track: drop leaves them out, blank takes silence.
    """
    signal = Audiovisual(Video(Dense(frames, stride)), Sound(seconds, rate), missing)
    found = streams(signal, crop, patch, tubelet, bins, audio_patch)
    kept = {key: stream for key, stream in found.items() if use in (key, signal.key)}
    encoder = _encoder(size, kept, fusion_layers if len(kept) > 1 else 0, positions, drop_path, norm="pooled")
    data = seen(signal, crop, flip)
    data.mean, data.std = IMAGENET_MEAN, IMAGENET_STD
    return Recipe(
        objective=Supervised(
            key=use,
            encoder=encoder,
            head=LinearHead(encoder.width, num_classes, std=2e-5),
            loss=classification(multi_label, smoothing=0.1),
        ),
        data=narrowed(data, use),
        optimizer=Optimizer(lr=1e-3, weight_decay=0.05, layer_decay=0.75),
        schedule=Schedule(epochs=50, warmup=5, batch=64),
        loader=Loader(batch=8),
    )


def _encoder(
    size: Size,
    found: dict[str, Stream],
    fusion_layers: int,
    positions: PositionKind,
    drop_path: float = 0.0,
    norm: Literal["tokens", "pooled"] = "tokens",
) -> Fusion:
    """An encoder for each stream, and the joint layers after them."""
    _, depth, heads = dimensions(size)
    stems = {key: stem(size, depth, stream, positions, drop_path) for key, stream in found.items()}
    return Fusion(stems, fusion_layers, heads, norm=norm, drop_path=[drop_path] * fusion_layers)


#: What a teacher's run decides of its student's: the network, and what it is shown.
DECIDES = (
    "size",
    "fusion_layers",
    "positions",
    "frames",
    "crop",
    "patch",
    "tubelet",
    "seconds",
    "rate",
    "bins",
    "audio_patch",
)


def _with_teacher(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags of a second stage, those among them that its teacher's run decides; of a first stage as they are.

    Raises:
        UserError: the teacher is no mavil, has no weights, or contradicts the other flags.
    """
    if not flags.get("teacher"):
        return flags
    make = "`unveil pretrain mavil --data … --out runs/mavil1` makes one."
    decides = {name: name for name in DECIDES}
    return decided_by(flags, "teacher", mavil, decides, "which is no teacher of a mavil", make)[0]


#: What is settled before a run begins, for each function of this module that asks for it.
SETTLED = {"mavil": _with_teacher}
