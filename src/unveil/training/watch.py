"""Where in a network values first are not finite: hooks on its modules, and words for tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

LISTED = 8


@dataclass
class Origin:
    """Where values first are not finite.

    Attributes:
        module: its name; "" for the objective itself.
        kind: its class.
        where: a sentence.
        values: what it was given, what it gave, and its parameters, one line each.
    """

    module: str
    kind: str
    where: str
    values: list[str]


def counts_in(x: Tensor) -> str:
    """ "3 NaN, 1 inf of 512"; "" where all are finite."""
    x = x.detach()
    if not (x.is_floating_point() or x.is_complex()) or bool(x.isfinite().all()):
        return ""
    nan = int(x.isnan().sum())
    infinite = int(x.isinf().sum())
    parts = [f"{count} {name}" for count, name in ((nan, "NaN"), (infinite, "inf")) if count]
    return f"{', '.join(parts)} of {x.numel()}"


def summary(x: Tensor) -> str:
    """Type, shape, range of the finite values, and how many are not: "float32 [4, 16, 32], -2.1 … 3.4, 12 NaN of 2048"."""
    text = f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"
    x = x.detach()
    if not x.is_floating_point() or not x.numel():
        return text
    finite = x[x.isfinite()]
    if finite.numel():
        text += f", {float(finite.min()):.4g} … {float(finite.max()):.4g}"
    counts = counts_in(x)
    return f"{text}, {counts}" if counts else text


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in arguments and results: in tuples (also named ones), lists, mappings and dataclasses' `__dict__`."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif hasattr(value, "__dataclass_fields__"):
        yield from tensors_in(vars(value))


class Watch:
    """Hooks on every module that note where NaN or infinity first appears.

    Modules finish from the inside outwards, so the first whose result is not finite is the innermost one. A module that is
    *given* such values has not made them: then the code of the module around it did, since its last child.
    -inf is noted apart: attention masks and biases hold it rightly.
    """

    def __init__(self) -> None:
        self.origin: Origin | None = None
        self.minus: Origin | None = None
        self.gradient: str | None = None
        self.stack: list[tuple[str, nn.Module]] = []
        self.last = ""
        self.sound = ""

    def before(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self.origin is None:
            given = list(tensors_in((args, kwargs)))
            if self.stack:
                around, outer = self.stack[-1]
                since = f"after `{self.last}`" if self.last else "at its beginning"
                where = f"in the forward of {_called(around, outer)} {since}, before `{name}`"
                self._note(around, outer, where, given, [])
            else:
                self._note(name, module, "in the batch itself, before the network", given, [])
        self.stack.append((name, module))

    def after(self, name: str, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        self.stack.pop()
        given, got = list(tensors_in((args, kwargs))), list(tensors_in(result))
        if self.origin is None:
            inside = any(child for child in module.children()) and self.last.startswith(f"{name}." if name else "")
            since = f", after `{self.last}`" if inside else ""
            self._note(name, module, f"in the forward of {_called(name, module)}{since}", given, got)
        self.last = name
        for x in got:
            if x.requires_grad:
                x.register_hook(lambda gradient, name=name, module=module: self._gradient(gradient, name, module))

    def _note(self, name: str, module: nn.Module, where: str, given: list[Tensor], got: list[Tensor]) -> None:
        looked_at = [x for x in (got or given) if x.is_floating_point() and not bool(x.isfinite().all())]
        if not looked_at:
            return
        only_minus = all(bool((x.isfinite() | (x == -math.inf)).all()) for x in looked_at)
        if only_minus and self.minus is not None:
            return
        values = [f"given: {summary(x)}" for x in given if x.is_floating_point()]
        values += [f"gave: {summary(x)}" for x in got if x.is_floating_point()]
        values += [f"{part}: {summary(p)}" for part, p in module.named_parameters(recurse=False)]
        origin = Origin(name, type(module).__name__, where, values[: 2 * LISTED])
        if only_minus:
            self.minus = origin
        else:
            self.origin = origin

    def _gradient(self, gradient: Tensor, name: str, module: nn.Module) -> None:
        if self.gradient is not None:
            return
        at = f"the result of {_called(name, module)}"
        if bool(gradient.isfinite().all()):
            self.sound = f"the gradient of {at} is finite; next on the way back, "
        else:
            self.gradient = f"{self.sound}the gradient of {at} is not finite: {summary(gradient)}"

    def afterwards(self, objective: nn.Module) -> Origin:
        """For a loss that is not finite though no module's result was NaN or +inf."""
        return self.minus or Origin("", type(objective).__name__, "in the objective's result", [])


def _called(name: str, module: nn.Module) -> str:
    return f"`{name}` ({type(module).__name__})" if name else f"the objective ({type(module).__name__})"


@contextmanager
def watch_modules(objective: nn.Module) -> Iterator[Watch]:
    watch = Watch()
    with ExitStack() as stack:
        for name, module in objective.named_modules():
            for handle in (
                module.register_forward_pre_hook(
                    lambda module, args, kwargs, name=name: watch.before(name, module, args, kwargs), with_kwargs=True
                ),
                module.register_forward_hook(
                    lambda module, args, kwargs, result, name=name: watch.after(name, module, args, kwargs, result),
                    with_kwargs=True,
                ),
            ):
                stack.callback(handle.remove)
        yield watch
