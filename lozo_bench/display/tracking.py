"""Writes a run's numbers to ``metrics.jsonl`` and to the trackers that the config names."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from lozo_bench.config.build import build, require
from lozo_bench.config.schema import TrackingConfig, WandbMode
from lozo_bench.display.trackers.base import About, Destination, grouped
from lozo_bench.display.trackers.wandb_run import WandbRun
from lozo_bench.evaluation.evaluate import Metrics
from lozo_bench.optimizers.base import Event
from lozo_bench.runs.files import read_file
from lozo_bench.runs.outcome import EVENTS, METRICS
from lozo_bench.runs.row import Row, read_row
from lozo_bench.runs.rows import evaluation_key

log = logging.getLogger(__name__)


class Tracker:
    """The records of one run. A context manager: its end closes the file and the trackers.

    A run that was interrupted is one curve in each tracker, however it ended: the rows in its files
    are sent again, and so are those of the steps that it makes again; of both, a tracker gets the
    numbers that it has not recorded.

    Args:
        about: the run; rows are appended to those in the files of its folder.
        tracking: which records are kept.
    """

    def __init__(self, about: About, tracking: TrackingConfig) -> None:
        self._folder = about.folder
        self._last_step = 0
        self._trackers = _started(about, tracking)
        self._send_past()
        self._lines = (about.folder / METRICS).open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lines.close()
        self._in_each(lambda tracker: tracker.close(failed=error is not None))

    def row(self, row: Mapping[str, float]) -> None:
        """Write a row, which has a ``step``, to ``metrics.jsonl`` and to the trackers."""
        self._lines.write(json.dumps(dict(row), allow_nan=False) + "\n")
        self._lines.flush()
        self._log(int(row["step"]), grouped(row))

    def event(self, step: int, event: Event) -> None:
        """Append a line to ``events.jsonl``, and log the event's numbers to the trackers."""
        line = {"step": step, "event": event.name}
        line |= {key: _json_value(x) for key, x in event.values.items()}
        with (self._folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._log(step, _of_event(line))

    def sync(self) -> None:
        """Sync the rows written so far to disk."""
        os.fsync(self._lines.fileno())

    def evaluated(self, step: int, name: str, metrics: Metrics, costs: Mapping[str, float]) -> None:
        """Write an evaluation's row: step, costs, NAME_accuracy, NAME_loss and so on."""
        values = {evaluation_key(name, key): value for key, value in metrics.values.items()}
        self.row({"step": step, **costs, **values})

    def summarize(self, summary: Mapping[str, float]) -> None:
        """Write the run's final numbers, which trackers show in their tables of runs."""
        self._in_each(lambda tracker: tracker.summarize(summary))

    def figure(self, path: Path) -> None:
        """Send a figure, an SVG file, to the trackers."""
        self._in_each(lambda tracker: tracker.figure(path))

    def _send_past(self) -> None:
        """Send the rows and events that are in the files already."""
        if not self._trackers:
            return
        events = map(_of_event, _lines(self._folder / EVENTS))
        past = [*events, *map(grouped, _lines(self._folder / METRICS))]
        # A test is the last row of a run, although it may be of an earlier step.
        tests = {at for at, each in enumerate(past) if any(key[:5] == "test/" for key in each)}
        for at in sorted(range(len(past)), key=lambda at: (at in tests, past[at]["step"])):
            self._log(int(past[at]["step"]), past[at])

    def _log(self, step: int, numbers: Mapping[str, float | str]) -> None:
        """Log numbers of a step to the trackers.

        wandb drops what comes at an earlier step than the last. So the test of an earlier step is
        logged at the last one, and says in ``tested_step`` which step it is of.
        """
        at = max(step, self._last_step)
        if at > step:
            numbers = {**numbers, "step": at, "tested_step": step}
        self._last_step = at
        self._in_each(lambda tracker: _log_new(tracker, at, numbers))

    def _in_each(self, action: Callable[[Destination], object]) -> None:
        """Call ``action`` with each tracker.

        An error in a tracker does not end the run: it gets nothing more, and the rest is recorded
        in the files.
        """
        for name, tracker in list(self._trackers.items()):
            failures: tuple[type[Exception], ...] = (OSError, *tracker.failures)
            try:
                action(tracker)
            except failures as error:
                log.warning(
                    "%s accepts no more numbers (%s); the run continues, and all numbers are in %s",
                    name,
                    error,
                    METRICS,
                )
                del self._trackers[name]


def _log_new(tracker: Destination, step: int, numbers: Mapping[str, float | str]) -> None:
    """Log what a tracker has not recorded of the numbers of a step."""
    new = {key: x for key, x in numbers.items() if key == "step" or tracker.recorded(key) < step}
    if len(new) > 1:
        tracker.log(step, new)


def _lines(path: Path) -> list[Row]:
    return [row for line in (read_file(path) or b"").split(b"\n") if (row := read_row(line))]


def _of_event(line: Row) -> dict[str, float | str]:
    """Return what trackers get of a line of ``events.jsonl``."""
    name = line["event"]
    values = {f"{name}/{key}": x for key, x in line.items() if key not in {"step", "event"}}
    return {"step": line["step"], **values}


def _json_value(value: float | str) -> float | str:
    """Return a value as JSON can hold it: infinity and NaN as texts."""
    if isinstance(value, str | int):
        return value
    number = float(value)  # also of tensors and of numpy's numbers
    return number if math.isfinite(number) else str(number)


def _started(about: About, tracking: TrackingConfig) -> dict[str, Destination]:
    """Start the trackers; the key of each is its name."""
    trackers: dict[str, Destination] = {}
    for name, node in tracking.trackers.items():
        key = f"tracking.trackers.{name}"
        trackers[name] = build(node, key, about)
        require(trackers[name], key, "recorded", "log", "summarize", "figure", "close", "failures")
    if tracking.wandb and tracking.mode is not WandbMode.disabled:
        trackers["wandb"] = WandbRun(about, tracking)
    return trackers
