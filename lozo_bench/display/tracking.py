"""Writes a run's numbers to ``metrics.jsonl``, ``result.json`` and, if wanted, wandb.

Only this module imports wandb.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from lozo_bench.config.schema import TrackingConfig, WandbMode
from lozo_bench.errors import UserError
from lozo_bench.evaluation.evaluate import Metrics
from lozo_bench.optimizers.base import Event
from lozo_bench.runs.outcome import EVENTS, METRICS
from lozo_bench.runs.rows import evaluation_key

log = logging.getLogger(__name__)


class Tracker:
    """The records of one run. A context manager: its end closes the file and the wandb run.

    Args:
        folder: the run's folder; rows are appended to those in its files.
        config: the config that wandb shows.
        tracking: which records are kept.
        name: the run's name in wandb.
        run_id: the run's id in wandb, which stays the same when the run is resumed.
        known_step: the last step that is not made again.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        tracking: TrackingConfig,
        name: str,
        run_id: str,
        known_step: int = 0,
    ) -> None:
        self._folder = folder
        self._lines = (folder / METRICS).open("a", encoding="utf-8")
        self._wandb_step = known_step
        self._wandb = _start_wandb(folder, config, tracking, name, run_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lines.close()
        self._with_wandb(lambda run: run.finish(exit_code=1 if error else 0))

    def row(self, row: Mapping[str, float]) -> None:
        """Write a row, which has a ``step``, to ``metrics.jsonl`` and to wandb."""
        self._lines.write(json.dumps(dict(row), allow_nan=False) + "\n")
        self._lines.flush()
        self._log_to_wandb(int(row["step"]), row)

    def event(self, step: int, event: Event) -> None:
        """Append a line to ``events.jsonl``, and log the event's numbers to wandb."""
        values = {key: _json_value(x) for key, x in event.values.items()}
        line = {"step": step, "event": event.name, **values}
        with (self._folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        numbers = {f"{event.name}/{key}": x for key, x in values.items()}
        self._log_to_wandb(step, {"step": step, **numbers})

    def sync(self) -> None:
        """Sync the rows written so far to disk."""
        os.fsync(self._lines.fileno())

    def evaluated(self, step: int, name: str, metrics: Metrics, forward_passes: int) -> None:
        """Write an evaluation's row: step, forward_passes, NAME_accuracy, NAME_loss and so on."""
        values = {evaluation_key(name, key): value for key, value in metrics.values.items()}
        self.row({"step": step, "forward_passes": forward_passes, **values})

    def summarize(self, summary: Mapping[str, float]) -> None:
        """Write the run's final numbers, which wandb shows in its table of runs."""
        self._with_wandb(lambda run: run.summary.update(dict(summary)))

    def figure(self, path: Path) -> None:
        """Send a figure, an SVG file, to wandb."""

        def send(run: Any) -> None:
            import wandb

            # Its images are of pixels only; a page may hold a drawing.
            page = wandb.Html(path.read_text(encoding="utf-8"), inject=False, data_is_not_path=True)
            run.log({path.stem: page}, step=self._wandb_step)

        self._with_wandb(send)

    def _log_to_wandb(self, step: int, numbers: Mapping[str, float | str]) -> None:
        """Log numbers of a step to wandb, under that step.

        wandb's own count of steps is the run's. So the second part of a run that was recorded
        offline continues the first one, and steps that are in both are the same ones. wandb drops
        what comes at an earlier step than the last. So the test of an earlier step is logged at the
        last one, and says in ``tested_step`` which step it is of.
        """
        at = max(step, self._wandb_step)
        if at > step:
            numbers = {**numbers, "step": at, "tested_step": step}
        self._wandb_step = at
        self._with_wandb(lambda run: run.log(dict(numbers), step=at))

    def _with_wandb(self, action: Callable[[Any], object]) -> None:
        """Call ``action`` with the wandb run, if there is one.

        An error in wandb does not end the run: the rest is recorded in files only.
        """
        if self._wandb is None:
            return
        import wandb

        try:
            action(self._wandb)
        except (wandb.Error, OSError) as error:
            log.warning(
                "wandb accepts no more numbers (%s); the run continues, and all numbers are in %s",
                error,
                METRICS,
            )
            self._wandb = None


def _json_value(value: float | str) -> float | str:
    """Return a value as JSON can hold it: infinity and NaN as texts."""
    if isinstance(value, str | int):
        return value
    number = float(value)  # also of tensors and of numpy's numbers
    return number if math.isfinite(number) else str(number)


def _start_wandb(
    folder: Path, config: Mapping[str, Any], tracking: TrackingConfig, name: str, run_id: str
) -> Any:
    if not tracking.wandb or tracking.mode is WandbMode.disabled:
        return None
    import wandb

    def start(mode: Literal["online", "offline", "disabled"]) -> Any:
        return wandb.init(
            project=tracking.project,
            entity=tracking.entity,
            group=tracking.group,
            name=name,
            tags=tracking.tags,
            id=run_id,
            resume="allow",
            dir=folder,
            config=dict(config),
            mode=mode,
            # A sweep may run several cells in one process: each must be a wandb run of its own.
            reinit="finish_previous",
            settings=wandb.Settings(silent=True, console="off"),
        )

    try:
        run = start("online" if tracking.mode is WandbMode.online else "offline")
    except (wandb.errors.CommError, TimeoutError) as error:
        log.warning(
            "wandb cannot be reached (%s); the run is recorded offline: `wandb sync %s` uploads it",
            " ".join(str(error).split()),
            folder / "wandb" / "offline-run-*",
        )
        run = start("offline")
    except wandb.Error as error:
        raise UserError(
            f"tracking.mode={tracking.mode.value}: wandb could not start ({error}); log in with "
            "`wandb login`, or use tracking.mode=offline or tracking=files"
        ) from error
    run.define_metric("*", step_metric="step")
    return run
