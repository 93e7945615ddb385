"""Networks as programs that run without this library: torch.export (.pt2) and ONNX. Both take batches of any size."""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from unveil.errors import UserError
from unveil.exporting.network import Deviation, Network, compare

#: ONNX is a protocol buffer, which may not be longer.
LARGEST_ONNX = 2**31 - 2**20
NAME = "unveil.json"


def torch_program(network: Network, x: Mapping[str, Tensor]) -> tuple[bytes, Deviation]:
    """A torch.export program as the bytes of a .pt2 file, loaded again and compared on `x` {key: [n, C, *S]}.

    The description lies in it under `NAME`.

    Raises:
        UserError: it cannot be traced, or its answers differ from the run's.
    """
    with _quiet():
        program = _traced(network, x)
        file = io.BytesIO()
        torch.export.save(program, file, extra_files={NAME: json.dumps(network.description, ensure_ascii=False)})
        again = torch.export.load(io.BytesIO(file.getvalue())).module()
    with torch.no_grad():
        deviation = _worst(network, x, again, "The torch program")
    return file.getvalue(), deviation


def onnx_program(network: Network, x: Mapping[str, Tensor]) -> tuple[bytes, Deviation]:
    """The bytes of a .onnx file, checked by onnx and compared in onnxruntime on `x` {key: [n, C, *S]}.

    Its metadata hold the description: `unveil` all of it, `mean`, `std`, `evaluation`, `signal` and `classes` as JSON.

    Raises:
        UserError: onnx is not installed, the network is too large for one file, cannot be traced, or answers differently.
    """
    onnx, onnxruntime = _packages()
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.module.state_dict().values())
    if size > LARGEST_ONNX:
        raise UserError(
            f"--format onnx: the network takes {size / 1e9:.1f} GB, and an ONNX file at most 2. Use --format torch or safetensors."
        )
    # Without gradients in either pass: which kernel of attention is taken, and so the layout of its result, depends on them.
    with _quiet(), torch.no_grad():
        made = torch.onnx.export(
            _traced(network, x),
            (),
            dynamo=True,
            input_names=list(network.shapes),
            output_names=[network.output],
            verbose=False,
        )
    assert made is not None
    model = made.model_proto
    _name_batch(model.graph)
    told = network.description["preprocessing"]
    metadata = {key: told[key] for key in ("mean", "std", "evaluation", "signal")}
    metadata |= {"classes": network.description["classes"], "unveil": network.description}
    onnx.helper.set_model_props(model, {key: json.dumps(value, ensure_ascii=False) for key, value in metadata.items()})
    content = model.SerializeToString()
    onnx.checker.check_model(content)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def again(*signals: Tensor) -> Tensor:
        given = {name: signal.numpy() for name, signal in zip(network.shapes, signals, strict=True)}
        return torch.from_numpy(session.run([network.output], given)[0])

    with torch.no_grad():
        return content, _worst(network, x, again, "The ONNX network")


def _traced(network: Network, x: Mapping[str, Tensor]) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    given = tuple(signal[:2] for signal in x.values())
    try:
        return torch.export.export(network.module, given, dynamic_shapes=(tuple({0: batch} for _ in given),))
    except Exception as error:  # the tracer raises its own and Python's, according to what it meets
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(
            f"the network of {network.description['recipe']} cannot be traced: {' '.join(lines[:3])} A batch's size has to be read "
            "off x.shape, not len(x), and no value of a tensor may decide what is computed. --format safetensors needs no trace."
        ) from error


def _name_batch(graph: Any) -> None:
    """The tracer's own symbol for the number of samples → "batch"."""
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(rf"\b{symbol}\b", "batch", dim.dim_param)


def _worst(network: Network, x: Mapping[str, Tensor], again: Any, what: str) -> Deviation:
    """The larger of two deviations: on a batch of one, and of all."""
    parts = [[signal[:1] for signal in x.values()], list(x.values())]
    return max(compare(network.module(*part), again(*part), what) for part in parts)


def _packages() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    except ModuleNotFoundError as error:
        raise UserError(
            f"--format onnx needs {error.name}, which is not installed. Install it: pip install 'unveil[export]'"
        ) from error
    return onnx, onnxruntime


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracers tell of their progress and of what will change in PyTorch: nothing a user could do anything about."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
