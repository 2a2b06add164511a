"""Weights & Biases. Only this module imports wandb."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lozo_bench.config.schema import TrackingConfig, WandbMode
from lozo_bench.display.trackers.base import About
from lozo_bench.display.trackers.wandb_folder import last_steps
from lozo_bench.errors import UserError

log = logging.getLogger(__name__)


class WandbRun:
    """Records a run in wandb, online or in the folder ``wandb`` of the run."""

    def __init__(self, about: About, tracking: TrackingConfig) -> None:
        import wandb

        self.failures: tuple[type[Exception], ...] = (wandb.Error,)
        last = last_steps(about.folder, about.run_id)
        self._run = _start(about, tracking)
        self._last = last if self._run.offline else {}
        self._before: int = self._run.starting_step - 1  # as wandb's server says; -1 without it
        self._step = max(self._before, *self._last.values(), 0)

    def recorded(self, name: str) -> int:
        """Return the last step at which wandb's server, or an offline folder, has a number."""
        return max(self._before, self._last.get(name, -1))

    def log(self, step: int, numbers: Mapping[str, float | str]) -> None:
        """Log numbers under a step.

        wandb's own count of steps is the run's. So the second part of a run that was recorded
        offline continues the first one, and steps that are in both are the same ones.
        """
        self._step = max(step, self._step)
        self._run.log(dict(numbers), step=step)

    def summarize(self, numbers: Mapping[str, float]) -> None:
        """Write the final numbers, which wandb shows in its table of runs."""
        self._run.summary.update(dict(numbers))

    def figure(self, path: Path) -> None:
        """Send a figure as a page that holds the drawing: wandb's images are of pixels only."""
        import wandb

        page = wandb.Html(path.read_text(encoding="utf-8"), inject=False, data_is_not_path=True)
        self._run.log({path.stem: page}, step=self._step)

    def close(self, failed: bool) -> None:
        """End the wandb run."""
        self._run.finish(exit_code=1 if failed else 0)
        if multiprocessing.parent_process() is not None:
            # Such a process ends without calling the functions that wait at a usual end until
            # wandb's own process has written everything.
            import wandb

            wandb.teardown()


def _settings() -> Any:
    """Return wandb's settings; a process that is killed loses one second of its curve, not 15."""
    import wandb

    flushes = "x_transaction_log_flush_interval"
    often: dict[str, Any] = {flushes: 1.0} if flushes in wandb.Settings.model_fields else {}
    return wandb.Settings(silent=True, console="off", **often)


def _start(about: About, tracking: TrackingConfig) -> Any:
    import wandb

    def start(mode: Literal["online", "offline", "disabled"]) -> Any:
        return wandb.init(
            project=tracking.project,
            entity=tracking.entity,
            group=about.group,
            job_type="train",
            name=about.name,
            tags=about.tags,
            id=about.run_id,
            resume="allow",
            dir=about.folder,
            config=dict(about.config),
            mode=mode,
            # A sweep may run several cells in one process: each must be a wandb run of its own.
            reinit="finish_previous",
            settings=_settings(),
        )

    try:
        run = start("online" if tracking.mode is WandbMode.online else "offline")
    except (wandb.errors.CommError, TimeoutError) as error:
        log.warning(
            "wandb cannot be reached (%s); the run is recorded offline: `wandb sync %s` uploads it",
            " ".join(str(error).split()),
            about.folder / "wandb" / "offline-run-*",
        )
        run = start("offline")
    except wandb.Error as error:
        raise UserError(
            f"tracking.mode={tracking.mode.value}: wandb could not start ({error}); log in with "
            "`wandb login`, or use tracking.mode=offline or tracking=files"
        ) from error
    run.define_metric("*", step_metric="step")
    return run
