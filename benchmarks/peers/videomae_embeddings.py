"""What one would write with transformers and torchcodec: a folder of clips → VideoMAE's mean-pooled embeddings, as .npy.

    python benchmarks/peers/videomae_embeddings.py MODEL FOLDER OUT.npy --batch 8 --workers 0

16 frames, 4 apart, from the beginning of each file; the short side and the centre 224. Knows nothing of unveil.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchcodec.decoders import VideoDecoder
from torchvision.transforms.v2 import functional as F
from transformers import VideoMAEModel

FRAMES, STRIDE, SHORT_SIDE, CROP = 16, 4, 224, 224
DTYPES = {"32": torch.float32, "bf16": torch.bfloat16}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Clips(torch.utils.data.Dataset[Tensor]):
    """uint8 [T,3,H,W] of each file."""

    def __init__(self, paths: list[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        path = str(self.paths[index])
        video = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="approximate")
        last = len(video) - 1
        frames = video.get_frames_at([min(place * STRIDE, last) for place in range(FRAMES)]).data.permute(0, 3, 1, 2)
        return F.center_crop(F.resize(frames, [SHORT_SIDE], antialias=True), [CROP, CROP])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--precision", choices=list(DTYPES), default="32")
    asked = parser.parse_args()
    model: Any = VideoMAEModel.from_pretrained(asked.model, dtype=DTYPES[asked.precision], attn_implementation="sdpa")
    model.eval()
    scale = torch.tensor(STD).mul(255).reciprocal().view(3, 1, 1)
    shift = (torch.tensor(MEAN) / torch.tensor(STD)).view(3, 1, 1)
    loader = torch.utils.data.DataLoader(
        Clips(sorted(asked.folder.glob("*.mp4"))), batch_size=asked.batch, num_workers=asked.workers
    )
    found = []
    with torch.inference_mode():
        for clips in loader:
            x = clips.float().mul_(scale).sub_(shift)
            found.append(model(pixel_values=x.to(model.dtype)).last_hidden_state.float().mean(1))
    np.save(asked.out, torch.cat(found).numpy())


if __name__ == "__main__":
    main()
