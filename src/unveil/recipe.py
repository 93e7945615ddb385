"""The only configuration there is: what a recipe returns.

A recipe is a function; its parameters are the command line's flags. It returns a `Recipe`, whose fields are the dotted
flags (`--optimizer.lr 1e-3`, `--schedule.epochs 100`, `--loader.workers 4`). Every number here can be read off a
published training script, so the units are the field's: epochs, base learning rate per 256 samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from unveil.data.captions import Captions
    from unveil.data.signal import Signal
    from unveil.objectives import Objective

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass
class Data:
    """How files become samples.

    Args:
        signal: what is read from a file: `Video(Dense(16, 4))`, `Image()`.
        transform: training transforms (torchvision.transforms.v2, uint8 in and out), in order; the same parameters
            for every frame of a clip.
        views: of further views of a training sample, the transforms of each. A sample then is [V,…], V = 1 + len(views): an
            image is decoded once and transformed V times; of a video each view is a clip of a moment of its own.
        evaluation: the deterministic transforms of evaluation (resize the short side, centre crop).
        mean, std: per channel, on values in [0, 1].
        erase: probability of random erasing, applied after normalisation; 0 for none.
        mixup, cutmix: alpha of the Beta distribution; 0 for none. One of the two is drawn for each pair of samples.
        mixed: share of the pairs that are mixed.
        repeats: crops taken from each decoded sample (repeated sampling; decode once).
        clips, crops: temporal and spatial views of a test sample, averaged after the softmax.
        text: how a row's caption becomes the sample's `text`; None where none is wanted.
    """

    signal: Signal
    transform: Sequence[Callable[[Any], Any]] = ()
    evaluation: Sequence[Callable[[Any], Any]] = ()
    views: Sequence[Sequence[Callable[[Any], Any]]] = ()
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mixed: float = 1.0
    repeats: int = 1
    clips: int = 1
    crops: int = 1
    text: Captions | None = None

    def described(self) -> dict[str, Any]:
        """What is done to a file, as plain values for a run.json."""
        return {
            "signal": repr(self.signal),
            "training": [repr(step) for step in self.transform],
            **{f"view {number}": [repr(step) for step in steps] for number, steps in enumerate(self.views, start=2)},
            "evaluation": [repr(step) for step in self.evaluation],
            "mean": self.mean,
            "std": self.std,
            **({} if self.text is None else {"text": repr(self.text)}),
        }


@dataclass
class Optimizer:
    """AdamW or SGD. `lr` is the base rate for 256 samples: the rate used is lr × effective batch / 256, and is printed.

    Args:
        kind: "adamw" or "sgd".
        lr: base learning rate, per 256 samples.
        betas: AdamW's.
        momentum: SGD's.
        nesterov: SGD's kind of momentum.
        weight_decay: not applied to biases, norms, tokens and position tables (tensors of one axis or marked so).
        layer_decay: each layer nearer the input learns at this factor of the one above it; 1 for none.
        fused: PyTorch's fused kernel, where the device has it.
    """

    kind: str = "adamw"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    fused: bool = True


@dataclass
class Schedule:
    """Linear warm-up, then half a cosine.

    Args:
        epochs: passes over the data.
        warmup: epochs of linear warm-up from zero.
        batch: samples that make one step of the optimiser, over all devices and accumulated micro-batches.
        min_lr: the rate at the end, in the same unit as `Optimizer.lr`.
    """

    epochs: float = 100
    warmup: float = 5
    batch: int = 256
    min_lr: float = 0.0


@dataclass
class Loader:
    """How samples reach the device. None of it changes what is learned.

    Args:
        batch: samples that go through the network at once on one device; the rest of `Schedule.batch` is accumulated.
            Lower it when memory runs out.
        workers: processes that decode; -1 for one per core, less one.
        prefetch: batches each worker keeps ready.
        start_method: how workers start: "fork", "spawn", "forkserver"; empty for the platform's own.
    """

    batch: int = 32
    workers: int = -1
    prefetch: int = 2
    start_method: str = ""


class Borrowed(NamedTuple):
    """A part of the objective whose weights are those of a part of another run, as a training begins.

    From then on they are the objective's own: saved with it, and read from there. The other run may be gone.

    Attributes:
        part: its name in the objective: "target.tokenizer".
        run: the other run's folder.
        theirs: the part's name in the other's objective.
        flag: the one that named the folder, for errors.
    """

    part: str
    run: str
    theirs: str
    flag: str


@dataclass
class Recipe:
    """A system, whole: what is learned, from what, and how.

    Args:
        objective: a module, batch → {"loss": …}.
        data: how files become samples.
        optimizer, schedule, loader: see there.
        clip_gradient: largest norm of the gradient; 0 for no clipping.
        ema: decay of an average of the weights kept beside them (used for evaluation); 0 for none.
        precise_bn: steps whose batches give batch norms their statistics anew, before every measurement and at the end; at most
            an epoch's; 0 keeps the moving averages.
        sync_batch_norm: batch norms see the micro-batches of all processes at once; on GPUs.
        class_weights: weight classes by the inverse of their frequency in the loss (supervised recipes).
        compile: compile each block with torch.compile.
        checkpointing: recompute activations in the backward pass: less memory, about a third more time.
        precision: "auto" (bf16 where the device has it, otherwise 32), "32", "bf16".
        licence: of the start weights, where the recipe loads any.
        borrowed: parts that begin with the weights of other runs.
    """

    objective: Objective
    data: Data
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    loader: Loader = field(default_factory=Loader)
    clip_gradient: float = 0.0
    ema: float = 0.0
    precise_bn: int = 0
    sync_batch_norm: bool = False
    class_weights: bool = False
    compile: bool = False
    checkpointing: bool = False
    precision: str = "auto"
    licence: str = ""
    borrowed: Sequence[Borrowed] = ()
