"""Files on disk → manifest → samples → batches."""

from unveil.data.audiovisual import Audiovisual
from unveil.data.clips import Clip, Dense, Uniform, notation
from unveil.data.cloud_files import Cloud, read_cloud
from unveil.data.cloud_transforms import Jitter, RandomRotation, RandomScale
from unveil.data.clouds import Points
from unveil.data.colour import ColorJitter, GaussianBlur, Grayscale, Solarize
from unveil.data.dataset import Dataset, Sample, sample_seed
from unveil.data.images import read_image
from unveil.data.lacking import complete
from unveil.data.loader import Batch, evaluation_batches, training_batches
from unveil.data.manifest import Manifest, Row
from unveil.data.mixture import mixture
from unveil.data.signal import Signal
from unveil.data.signals import Image, Video, signal_of, to_input
from unveil.data.sound import Sound
from unveil.data.sound_reader import SoundReader
from unveil.data.sound_transforms import RandomLoudness, RandomRoll, WaveMixUp
from unveil.data.splits import split
from unveil.data.streams import SeveralStreams, divided, filling, narrowed, normalised, prepared, stacked, streams_in
from unveil.data.training_order import TrainingOrder
from unveil.data.transforms import (
    CenterCrop,
    HorizontalFlip,
    MultiScaleCrop,
    RandAugment,
    RandomErasing,
    RandomResizedCrop,
    RandomShortSideCrop,
    ResizeShort,
    centred,
    fine_tuning,
    three_crops,
)
from unveil.data.video import VideoInfo, frames, probe, read_frames, windows
from unveil.data.video_reader import VideoReader
from unveil.data.visual import Visual

__all__ = [
    "Audiovisual",
    "Batch",
    "CenterCrop",
    "Clip",
    "Cloud",
    "ColorJitter",
    "Dataset",
    "Dense",
    "GaussianBlur",
    "Grayscale",
    "HorizontalFlip",
    "Image",
    "Jitter",
    "Manifest",
    "MultiScaleCrop",
    "Points",
    "RandAugment",
    "RandomErasing",
    "RandomLoudness",
    "RandomResizedCrop",
    "RandomRoll",
    "RandomRotation",
    "RandomScale",
    "RandomShortSideCrop",
    "ResizeShort",
    "Row",
    "Sample",
    "SeveralStreams",
    "Signal",
    "Solarize",
    "Sound",
    "SoundReader",
    "TrainingOrder",
    "Uniform",
    "Video",
    "VideoInfo",
    "VideoReader",
    "Visual",
    "WaveMixUp",
    "centred",
    "complete",
    "divided",
    "evaluation_batches",
    "filling",
    "fine_tuning",
    "frames",
    "mixture",
    "narrowed",
    "normalised",
    "notation",
    "prepared",
    "probe",
    "read_cloud",
    "read_frames",
    "read_image",
    "sample_seed",
    "signal_of",
    "split",
    "stacked",
    "streams_in",
    "three_crops",
    "to_input",
    "training_batches",
    "windows",
]
