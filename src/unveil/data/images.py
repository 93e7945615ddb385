"""Image files, through Pillow."""

from __future__ import annotations

import os

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from unveil.data.archives import opened
from unveil.data.regular_files import check_regular
from unveil.errors import DecodeError


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """An image, a file or a member of an archive, as uint8 [3,H,W] RGB, upright (EXIF orientation applied).

    Palettes, grey, CMYK and 16-bit samples are converted (16 bits keep their upper eight); alpha is dropped, as Pillow's
    `convert("RGB")` does in the published data loaders; of an animation the first frame is read.

    Raises:
        DecodeError: no such file, not a regular one, not an image, truncated, or with floating-point pixels (whose range no
            file tells).
    """
    check_regular(path)
    try:
        with opened(path) as file, Image.open(file) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            if upright.mode == "F":
                raise DecodeError(f"{path}: floating-point pixels; convert the file to 8 or 16 bits.")
            if upright.mode.startswith("I"):
                # Pillow's own conversion would clip 16-bit values to 255.
                wide = np.asarray(upright)
                if wide.size and (wide.min() < 0 or wide.max() > 65535):
                    raise DecodeError(f"{path}: pixel values exceed 16 bits; convert the file to 8 or 16 bits.")
                array = np.repeat((wide >> 8).astype(np.uint8)[..., None], 3, axis=2)
            else:
                if upright.mode == "P" and "transparency" in upright.info:
                    upright = upright.convert("RGBA")  # Pillow warns about the direct way
                array = np.array(upright.convert("RGB"))
    except DecodeError:
        raise
    # Pillow reports broken files with whatever its decoders meet: OSError, SyntaxError (PNG), ValueError, struct.error…
    except Exception as error:
        raise DecodeError(f"{path}: {error}") from error
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()
