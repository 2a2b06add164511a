"""Where numbers go: ``metrics.jsonl``, ``result.json`` and, if wanted, wandb.

The only place that imports wandb.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from lozo_bench.config import TrackingConfig, WandbMode
from lozo_bench.errors import UserError
from lozo_bench.evaluation.evaluate import Metrics
from lozo_bench.optimizers.base import Event
from lozo_bench.runs.atomic import write_text
from lozo_bench.runs.outcome import METRICS, RESULT

log = logging.getLogger(__name__)
EVENTS = "events.jsonl"


class Tracker:
    """One run's records. A context manager: leaving it closes the file and ends the wandb run.

    Args:
        folder: the run's.
        config: as wandb shows it.
        tracking: where numbers go.
        name: what wandb calls the run.
        run_id: what wandb knows it by; the same when the run is gone on with.
        remembers: of a row that was tracked before, whether it will not come again.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        tracking: TrackingConfig,
        name: str,
        run_id: str,
        remembers: Callable[[Mapping[str, float]], bool] = lambda row: False,
    ) -> None:
        self._folder = folder
        _cut(folder / METRICS, remembers)
        _cut(folder / EVENTS, remembers)
        self._lines = (folder / METRICS).open("a", encoding="utf-8")
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
        self._tell_wandb(lambda run: run.finish(exit_code=1 if error else 0))

    def row(self, row: Mapping[str, float]) -> None:
        """A line of ``metrics.jsonl`` and a point in wandb; ``row`` has a ``step``."""
        self._lines.write(json.dumps(dict(row), allow_nan=False) + "\n")
        self._lines.flush()
        self._tell_wandb(lambda run: run.log(dict(row)))

    def event(self, step: int, event: Event) -> None:
        """Append a line to ``events.jsonl``, and log the event's numbers to wandb."""
        line = {"step": step, "event": event.name, **event.values}
        with (self._folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        numbers = {f"{event.name}/{key}": x for key, x in event.values.items()}
        self._tell_wandb(lambda run: run.log({"step": step, **numbers}))

    def settle(self) -> None:
        """Make the lines so far last."""
        os.fsync(self._lines.fileno())

    def evaluated(self, step: int, name: str, metrics: Metrics, forward_passes: int) -> None:
        """A line for an evaluation: step, forward_passes, NAME_accuracy, NAME_loss and so on."""
        self.row(
            {
                "step": step,
                "forward_passes": forward_passes,
                **{f"{name}_{key}": value for key, value in metrics.values.items()},
            }
        )

    def summarize(self, summary: Mapping[str, float]) -> None:
        """The run's final numbers, shown by wandb in its table of runs."""
        self._tell_wandb(lambda run: run.summary.update(dict(summary)))

    def _tell_wandb(self, tell: Callable[[Any], object]) -> None:
        """Tell wandb, if it is there. A run does not end because its picture cannot be drawn."""
        if self._wandb is None:
            return
        import wandb

        try:
            tell(self._wandb)
        except (wandb.Error, OSError) as error:
            log.warning(
                "wandb takes no more numbers (%s); the run goes on, and all of them are in %s",
                error,
                METRICS,
            )
            self._wandb = None


def _cut(path: Path, remembers: Callable[[Mapping[str, float]], bool]) -> None:
    """Keep the rows that will not come again; half a row always does."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if remembers(row):
            kept.append(line + "\n")
    write_text(path, "".join(kept))


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
            # A sweep runs many cells in one process: each must be a run of its own.
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


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write ``result.json`` whole or not at all: its presence means that the run is finished."""
    write_text(folder / RESULT, json.dumps(result, indent=2, allow_nan=False) + "\n")


def read_result(folder: Path, digest: str) -> dict[str, Any] | None:
    """The finished result in ``folder``, or None.

    Raises:
        UserError: the file is damaged or belongs to another config.
    """
    path = folder / RESULT
    if not path.is_file():
        return None
    try:
        result: Any = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON ({error}); run again with rerun=all") from error
    if not isinstance(result, dict) or not {"status", "digest", "metrics"} <= set(result):
        raise UserError(f"{path}: not a run's result; run again with rerun=all")
    if result["digest"] != digest:
        raise UserError(
            f"{path}: its digest is {result['digest']}, this run's is {digest}; "
            "move the folder away or run again with rerun=all"
        )
    finished: dict[str, Any] = result
    return finished
