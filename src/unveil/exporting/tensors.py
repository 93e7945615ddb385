"""Networks as plain tensors: a safetensors file, and a JSON of what one needs to use them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from unveil.errors import UserError
from unveil.exporting.network import Network, Part
from unveil.run import Run
from unveil.storage import replacing, write_json


def write_tensors(run: Run, network: Network, part: Part, out: Path, use: str | None = None) -> list[Path]:
    """Write OUT and, beside it, the same name with .json; the description is also in the file's own metadata.

    Args:
        run: whose network it is.
        network: what `network_of` made of it, for the description.
        part: "whole" is the objective's state, heads and decoders included; "encoder" the encoder's.
        out: ends in .safetensors.
        use: the tower; of "encoder".

    Raises:
        UserError: what was written is not what is read back; then neither file is there.
    """
    module = run.objective if part == "whole" else run.tower(use).encoder
    state = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
    description: dict[str, Any] = {**network.description, "part": part}
    told = out.with_suffix(".json")
    with replacing(out) as temporary:
        save_file(state, temporary, metadata={"format": "pt", "unveil": json.dumps(description, ensure_ascii=False)})
        again = load_file(temporary)
        if again.keys() != state.keys() or not all(torch.equal(again[name], state[name]) for name in state):
            raise UserError(f"{out}: what was written is not what is read back. Try again, perhaps on another disk.")
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    tensors = {name: {"shape": list(value.shape), "dtype": str(value.dtype)[6:]} for name, value in state.items()}
    write_json(told, {**description, "file": out.name, "sha256": digest, "tensors": tensors})
    return [out, told]
