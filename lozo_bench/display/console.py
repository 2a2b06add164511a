"""The terminal output of a run: a progress bar or plain lines, and a table at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lozo_bench.config.schema import Select
from lozo_bench.display.device_hours import DeviceHours
from lozo_bench.display.tracking import Tracker
from lozo_bench.evaluation.evaluate import Metrics
from lozo_bench.optimizers.base import Event

log = logging.getLogger(__name__)
_SHOWN = {
    Select.dev_metric: "best dev",
    Select.dev_loss: "best dev loss",
    Select.last: "last dev",
}
_LONGEST = 160  # characters of a text


class ProgressBar:
    """A progress bar on a terminal; otherwise one log line for each row and evaluation.

    Args:
        steps: the run's number of steps.
        select: how the tested step is chosen; its dev is shown: the best metric or loss, or the
            last metric.
        known: the last step that an earlier attempt made. The estimate of the time that is left
            counts only later steps, because restoring a step takes far less time than making it.
        cost: what the run costs in hours of its devices.
    """

    def __init__(
        self,
        steps: int,
        known: int = 0,
        select: Select = Select.dev_metric,
        cost: DeviceHours | None = None,
    ) -> None:
        self.steps, self.known, self.select = steps, known, select
        self.cost = cost or DeviceHours()
        self.best_dev: float | None = None
        self.began = time.perf_counter()
        self.first_new: int | None = None
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal
        self.bar = Progress(
            TextColumn("{task.fields[what]}"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[message]}  ETA"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.live,
        )
        self.task = self.bar.add_task("", total=steps, what="step", message="")
        self.evaluation = self.bar.add_task("", total=1, what="", message="", visible=False)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def advanced(self, step: int, loss: float) -> None:
        """Move the bar to a step and show its loss."""
        if self.first_new is None and step > self.known:
            self.first_new = step
            self.bar.reset(self.task, total=self.steps, completed=step - 1)
        elif step <= self.known:
            self.began = time.perf_counter()
        restores = step <= self.known
        what = "restoring step" if restores else "step"
        cost = "" if restores else self.cost.shown(self._left(step))
        message = f"loss {loss:.4f}  {self._best()}{cost}"
        total = self.known if restores else self.steps
        self.bar.update(self.task, completed=step, total=total, what=what, message=message)

    def skipped(self, step: int, why: str) -> None:
        """Log a warning that a step was skipped."""
        log.warning("step %d was skipped: %s", step, why)

    def doubted(self, why: str) -> None:
        """Log a warning about the whole run."""
        log.warning("%s", why)

    def happened(self, step: int, event: Event) -> None:
        """Log an event of a step."""
        values = "  ".join(f"{key} {_short(value)}" for key, value in event.values.items())
        log.info("step %d  %s  %s", step, event.name, values)

    def row(self, row: Mapping[str, float]) -> None:
        """Log a row of training numbers if there is no bar."""
        if not self.live:
            step = int(row["step"])
            left = self._left(step)
            log.info(
                "step %d/%d  loss %.4f  %s  ETA %s%s",
                step,
                self.steps,
                row["loss"],
                self._best(),
                _clock(left),
                self.cost.shown(left),
            )

    def _left(self, step: int) -> float:
        """Return how many seconds the rest of the run takes at the speed so far."""
        made = max(1, step - self.known)
        return (time.perf_counter() - self.began) / made * (self.steps - step)

    def _best(self) -> str:
        value = "-" if self.best_dev is None else f"{self.best_dev:.4f}"
        return f"{_SHOWN[self.select]} {value}"

    def evaluated(self, step: int, name: str, metrics: Metrics) -> None:
        """Show an evaluation: the best dev metric in the bar, or all metrics as a log line."""
        self.bar.update(self.evaluation, visible=False)
        self.recalled(name, metrics)
        if not self.live:
            message = "  ".join(f"{key} {value:.4f}" for key, value in metrics.values.items())
            log.info("step %d  %s %s", step, name, message)

    def recalled(self, name: str, metrics: Metrics) -> None:
        """Take an evaluation into account that an earlier attempt made."""
        by_loss = self.select is Select.dev_loss
        if name != "dev" or (metrics.name == "loss" and not by_loss):
            return
        new = metrics.loss if by_loss else metrics.main
        if self.best_dev is None or self.select is Select.last:
            self.best_dev = new
        else:
            better = min if by_loss or metrics.lower_is_better else max
            self.best_dev = better(new, self.best_dev)

    def evaluating(self, name: str, done: int, of: int) -> None:
        """Show how many examples of an evaluation are done."""
        self.bar.update(self.evaluation, completed=done, total=of, what=name, visible=True)


class FilesAndTerminal:
    """An observer of the trainer that passes everything to the files and to the terminal."""

    def __init__(self, tracker: Tracker, bar: ProgressBar) -> None:
        self.tracker, self.bar = tracker, bar
        self.advanced, self.skipped, self.recalled = bar.advanced, bar.skipped, bar.recalled
        self.doubted = bar.doubted

    def happened(self, step: int, event: Event) -> None:
        """Pass on an event of a step."""
        self.tracker.event(step, event)
        self.bar.happened(step, event)

    def stepped(self, row: Mapping[str, float]) -> None:
        """Record and show a row of training numbers."""
        self.tracker.row(row)
        self.bar.row(row)

    def evaluating(self, name: str, done: int, of: int) -> None:
        """Show how many examples of an evaluation are done."""
        self.bar.evaluating(name, done, of)

    def evaluated(self, step: int, name: str, metrics: Metrics, costs: Mapping[str, float]) -> None:
        """Record and show the metrics of an evaluation."""
        self.tracker.evaluated(step, name, metrics, costs)
        self.bar.evaluated(step, name, metrics)


def _short(value: float | str) -> str:
    """Return a value as it is shown; all digits of a number, and long texts, are in the files."""
    if isinstance(value, str | int):
        text = str(value)
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    return f"{float(value):.4g}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def summary_table(result: Mapping[str, Any], folder: Path) -> Table:
    """Return the table that a run prints at its end.

    The dev metric is that of the step whose weights are tested, which need not be the last one.
    """
    metrics = result["metrics"]
    at = f" (step {result['best_step']})" if "dev" in metrics else ""
    of_run = result.get("peak_memory_of", "run") == "run"  # results of former versions do not say
    memory = "peak memory" if of_run else "process's peak memory"
    table = Table(title=folder.name, title_justify="left")
    for column in ("zero-shot", f"dev{at}", f"test{at}", "ms/step", memory):
        table.add_column(column, justify="right")
    table.add_row(
        *(_first(metrics.get(name)) for name in ("zero_shot", "dev", "test")),
        "-" if result["step_ms_median"] is None else f"{result['step_ms_median']:.1f}",
        f"{result['peak_memory_bytes'] / 2**20:,.0f} MiB",
    )
    return table


def _first(values: Mapping[str, float] | None) -> str:
    """Return the first metric, with its name unless it is the accuracy."""
    if values is None:
        return "-"
    name, value = next(iter(values.items()))
    return f"{value:.4f}" if name == "accuracy" else f"{name} {value:.4f}"


def print_summary(result: Mapping[str, Any], folder: Path) -> None:
    """Print the table and where the outputs are, to standard output."""
    console = Console(soft_wrap=True)
    console.print(summary_table(result, folder))
    console.print(f"outputs: {folder}", highlight=False)
