"""Where numbers go: ``metrics.jsonl``, ``result.json`` and, if wanted, wandb.

The only place that imports wandb.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lozo_bench.config import TrackingConfig, WandbMode
from lozo_bench.errors import UserError
from lozo_bench.evaluation.evaluate import Metrics

RESULT = "result.json"


class Tracker:
    """One run's records. A context manager: leaving it closes the file and ends the wandb run."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        tracking: TrackingConfig,
        name: str,
        run_id: str,
    ) -> None:
        self._lines = (folder / "metrics.jsonl").open("w", encoding="utf-8")
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
        if self._wandb is not None:
            self._wandb.finish(exit_code=1 if error else 0)

    def row(self, row: Mapping[str, float]) -> None:
        """A line of ``metrics.jsonl`` and a point in wandb; ``row`` has a ``step``."""
        self._lines.write(json.dumps(dict(row), allow_nan=False) + "\n")
        self._lines.flush()
        if self._wandb is not None:
            self._wandb.log(dict(row))

    def evaluated(self, step: int, name: str, metrics: Metrics, forward_passes: int) -> None:
        """A line for an evaluation: step, forward_passes, and NAME_accuracy and NAME_loss."""
        self.row(
            {
                "step": step,
                "forward_passes": forward_passes,
                f"{name}_accuracy": metrics.accuracy,
                f"{name}_loss": metrics.loss,
            }
        )

    def summarize(self, summary: Mapping[str, float]) -> None:
        """The run's final numbers, shown by wandb in its table of runs."""
        if self._wandb is not None:
            self._wandb.summary.update(dict(summary))


def _start_wandb(
    folder: Path, config: Mapping[str, Any], tracking: TrackingConfig, name: str, run_id: str
) -> Any:
    if not tracking.wandb or tracking.mode is WandbMode.disabled:
        return None
    import wandb

    try:
        run = wandb.init(
            project=tracking.project,
            entity=tracking.entity,
            group=tracking.group,
            name=name,
            tags=tracking.tags,
            # The digest, findable, and the time: another sweep or a rerun is another run.
            id=f"{run_id}-{time.time_ns() // 10**6:x}",
            dir=folder,
            config=dict(config),
            mode=tracking.mode.value,
            # A sweep runs many cells in one process: each must be a run of its own.
            reinit="finish_previous",
            settings=wandb.Settings(silent=True, console="off"),
        )
    except wandb.Error as error:
        raise UserError(
            f"tracking.mode={tracking.mode.value}: wandb could not start ({error}); log in with "
            "`wandb login`, or use tracking.mode=offline or tracking=files"
        ) from error
    run.define_metric("*", step_metric="step")
    return run


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write ``result.json`` whole or not at all: its presence means that the run is finished."""
    draft = folder / f"{RESULT}.partial"
    with draft.open("w", encoding="utf-8") as file:
        json.dump(result, file, indent=2, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / RESULT)


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
        raise UserError(f"{path}: not JSON ({error}); run again with rerun=true") from error
    if not isinstance(result, dict) or not {"status", "digest", "metrics"} <= set(result):
        raise UserError(f"{path}: not a run's result; run again with rerun=true")
    if result["digest"] != digest:
        raise UserError(
            f"{path}: its digest is {result['digest']}, this run's is {digest}; "
            "move the folder away or run again with rerun=true"
        )
    finished: dict[str, Any] = result
    return finished
