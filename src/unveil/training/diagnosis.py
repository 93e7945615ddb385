"""What a replayed step says: what was found, what differs from the run, and what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from unveil.run import Run, versions
from unveil.training.watch import Origin

HUGE = 1e4
"""Weights of a healthy network are far below; one above is worth a word."""


@dataclass
class Replay:
    """What came of replaying a step.

    Attributes:
        step: counted from 1, as in the log.
        recorded: what was not finite in the run, in words.
        device: on which it was replayed.
        repeated: whether it was not finite again.
        losses: of the replayed micro-batches, as text.
        weights: parameters that were not finite before the step, with counts.
        huge: parameters with values above `HUGE`.
        inputs: samples that are not finite themselves, with their files.
        origin: None where the forward pass is finite.
        backward: what the backward pass gave where the forward pass was finite.
        files: those whose sample alone gives a loss that is not finite.
        float32: whether the loss is finite without half precision; None where the run used none.
        advice: what to do, the likeliest remedy first.
        notes: what differs between the run and the replay.
    """

    step: int
    recorded: str
    device: str
    repeated: bool = False
    losses: list[str] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    huge: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    origin: Origin | None = None
    backward: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    float32: bool | None = None
    advice: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def recorded(infos: list[dict[str, Any]]) -> str:
    loss, norm = infos[0]["loss"], infos[0]["gradient_norm"]
    text = f"the loss was {loss}, the gradient's norm {norm}"
    if infos[0]["world"] > 1:
        guilty = [
            str(info["rank"])
            for info in infos
            if any(not math.isfinite(float(m["loss"])) for m in info["micro_batches"])
        ]
        text += (
            f", in process {', '.join(guilty)}" if guilty and len(guilty) < infos[0]["world"] else ", in all processes"
        )
    return text


def differences(run: Run, info: Mapping[str, Any]) -> list[str]:
    notes = []
    recorded = torch.device(info["device"]).type
    if recorded != run.device.type:
        notes.append(f"the run was on {recorded}, this replay is on {run.device.type}: rounding and dropout differ")
    here = versions()
    other = [f"{name} {old} → {here[name]}" for name, old in info["versions"].items() if here.get(name, old) != old]
    if other:
        notes.append("versions have changed: " + ", ".join(other))
    steps = [line["step"] for line in run.log()]
    if steps and steps[-1] >= info["step"]:
        notes.append(f"the run has since gone on to step {steps[-1]}")
    return notes


def advise(found: Replay, run: Run) -> list[str]:
    """Remedies, the likeliest first."""
    slower = "Lower --optimizer.lr, lengthen --schedule.warmup, or add --clip-gradient 1; in a new --out."
    advice = []
    if found.weights:
        first = [f"Weights were not finite before this step ({found.weights[0]}): the fault lies before it."]
        if run.info.get("asked", {}).get("start"):
            first.append(f"Check what the run started from: {run.info['asked']['start']}.")
        first.append(
            "Begin again from sound weights, or delete the newest file in checkpoints/ to resume from the one before."
        )
        return first
    if found.inputs:
        advice.append(
            "What the network was given is not finite: look at these files, at --sample.std (a zero divides), and at "
            "transforms of your own."
        )
    if found.float32:
        advice.append("In float32 the same step is finite: use --precision 32, or a lower --optimizer.lr.")
    if found.files:
        advice.append("Only these files give it: look at them, and leave them out if they are broken.")
    if found.huge:
        advice.append(f"Weights have grown very large ({found.huge[0]}): training had been diverging. {slower}")
    elif not found.inputs and not found.float32:
        rising = _rising(run)
        advice.append(f"{rising} {slower}" if rising else slower)
    if not found.repeated:
        advice.insert(
            0,
            "The replay is finite. If the run was on another device or version, replay it there (--device); otherwise "
            "suspect the hardware: run the same command again, it resumes from the last checkpoint.",
        )
    return advice


def _rising(run: Run) -> str:
    """A sentence where the log shows gradients or losses that grew before the step."""
    log = run.log()
    for key, name in (("gradient_norm", "The gradient's norm"), ("loss", "The loss")):
        values = [line[key] for line in log if isinstance(line.get(key), int | float) and math.isfinite(line[key])]
        if len(values) >= 20:
            usual, last = sorted(values)[len(values) // 2], max(values[-3:])
            if usual > 0 and last > 5 * usual:
                return f"{name} had risen to {last:.3g} (usually {usual:.3g}) before it: training was diverging."
    return ""
