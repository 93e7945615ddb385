"""Small real runs and small real files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

import unveil
from unveil.data import Manifest, Row
from unveil.run import Run, load, new_info
from unveil.storage import write_json

FPS = 10
VIDEO = {"size": "debug", "frames": 4, "stride": 2, "crop": 32, "patch": 8}
IMAGE = {"size": "debug", "crop": 32, "patch": 8}


def write_video(path: Path, seconds: float, colour: int = 0, side: int = 40) -> Path:
    """A video whose brightness tells the time: frame k has the grey level 4 k + colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for k in range(round(seconds * FPS)):
            array = np.full((side, side, 3), (4 * k + colour) % 256, np.uint8)
            array[: side // 2, :, 0] = 255 - array[: side // 2, :, 0]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_image(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 40, 3), dtype=np.uint8)).save(path)
    return path


def make_run(folder: Path, recipe: str, flags: dict[str, Any], classes: list[str] | None = None, **more: Any) -> Run:
    """A run folder with random weights, as training would leave it after no step."""
    torch.manual_seed(0)
    built = unveil.build(recipe, **flags)
    folder.mkdir(parents=True)
    save_file(built.objective.state_dict(), folder / "weights.safetensors")
    info = new_info("train" if classes else "pretrain", recipe, flags, classes=classes or [], **more)
    write_json(folder / "run.json", {**info, "status": "complete"})
    return load(folder, "cpu")


def write_manifest(run: Run, rows: list[Row], name: str = "manifest") -> None:
    Manifest.of(rows).save(run.path / f"{name}.parquet")


def write_log(run: Run, lines: list[dict[str, Any]]) -> None:
    (run.path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
