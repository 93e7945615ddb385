"""Where the numbers of a run go: log.jsonl always, a progress bar, and the loggers asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unveil.errors import UserError
from unveil.storage import naming, read_lines, replacing

LOGGERS = ("tensorboard", "wandb", "mlflow")


def make_loggers(names: list[str], run: Path) -> list[Any]:
    """Lightning's loggers, by name.

    Raises:
        UserError: an unknown name, or its package is not installed.
    """
    made = []
    for name in names:
        if name not in LOGGERS:
            raise UserError(f"--logger {name}: unknown. Use {', '.join(LOGGERS)}; log.jsonl is always written.")
        try:
            from pytorch_lightning import loggers

            if name == "tensorboard":
                made.append(loggers.TensorBoardLogger(str(run), name="", version="tensorboard"))
            elif name == "wandb":
                made.append(loggers.WandbLogger(name=run.name, save_dir=str(run)))
            else:
                # MLflow no longer writes to a plain folder; a server is named by its own variable.
                store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.resolve() / 'mlflow.db'}"
                made.append(loggers.MLFlowLogger(experiment_name="unveil", run_name=run.name, tracking_uri=store))
        except ModuleNotFoundError as error:
            raise UserError(f"--logger {name}: {error}. Install it: pip install 'unveil[loggers]'") from error
    return made


class Log:
    """log.jsonl, one object a step, flushed as it is written, and a bar that shows the same.

    Opened at step `done`, it first drops the lines of later steps: those are steps that a kill cut off from their
    checkpoint and that are about to be run again. Of several processes only the first one opens it.
    """

    def __init__(self, run: Path, done: int, total: int, loggers: list[Any], first: bool = True, quiet: bool = False):
        self.path = run / "log.jsonl"
        self.file = None
        if first:
            lines = read_lines(self.path)
            with replacing(self.path) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in lines if line["step"] <= done))
            self.file = self.path.open("a", encoding="utf-8")
        quiet = quiet or not first
        self.loggers = loggers
        # One object for all output: a bar and prints from two consoles overwrite each other.
        self.console = Console(stderr=True, quiet=quiet)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]} · left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
        )
        self.task = self.progress.add_task("step", total=total, completed=done, numbers="")
        self.total = total
        self.plain = self.progress.disable and not quiet
        self.progress.start()

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def step(self, numbers: dict[str, Any]) -> None:
        if self.file is None:
            return
        with naming(self.path):
            self.file.write(json.dumps(numbers) + "\n")
            self.file.flush()
        shown = (
            f"loss {numbers['loss']:.4g} · {numbers['samples_per_s']:.3g} samples/s · "
            f"data wait {100 * numbers['data_wait']:.0f} %"
        )
        self.progress.update(self.task, completed=numbers["step"], numbers=shown)
        # Without a terminal a bar is noise; a line every twentieth of the run says as much.
        if self.plain and (numbers["step"] % max(1, self.total // 20) == 0 or numbers["step"] == self.total):
            self.say(f"step {numbers['step']}/{self.total}  {shown}")
        scalars = {k: v for k, v in numbers.items() if isinstance(v, int | float) and k != "step"}
        for logger in self.loggers:
            logger.log_metrics(scalars, step=numbers["step"])

    def flush(self) -> None:
        """All lines so far are on the disk."""
        if self.file is not None:
            with naming(self.path):
                os.fsync(self.file.fileno())

    def close(self) -> None:
        self.progress.stop()
        if self.file is not None:
            with naming(self.path):  # what could not be written is tried again here
                self.file.close()
        for logger in self.loggers:
            logger.finalize("success")
