"""``hydra/launcher=serial``, the default: runs the cells one after the other in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta

from hydra.core.utils import JobReturn, configure_log, env_override, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from rich.console import Console

from lozo_bench import launch
from lozo_bench.launch.cells import Ended, Planned, skipped
from lozo_bench.launch.child import run_as_hydra_job
from lozo_bench.launch.planning import plan
from lozo_bench.launch.signals import nothing_begun
from lozo_bench.runs.outcome import RESULT, Code, written_at
from lozo_bench.runs.status import CellState


class SerialLauncher(Launcher):
    """The Hydra launcher that runs the cells in turn. One that fails does not stop the others."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra passes to a launcher. The task is always `run_cell`."""
        self._config, self._context = config, hydra_context

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the cells; a signal stops the one that runs, and no other begins."""
        setup_globals()
        self._configure_log()
        done: list[Ended] = []
        turns = Turns(initial_job_idx + len(job_overrides), initial_job_idx)
        for cell in plan(self._context, self._config, job_overrides, initial_job_idx):
            if isinstance(cell, Planned):
                turns.begin(cell.name)
                ended = _run(cell)
                self._configure_log()
            else:
                ended = cell  # its config cannot be composed
            turns.end(ran=ended.cell.state is CellState.finished)
            done.append(ended)
            if ended.code is Code.stopped:
                launch.stop()
                break
        return launch.jobs(done)

    def _configure_log(self) -> None:
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)


def _run(cell: Planned) -> Ended:
    # Libraries read the environment when they are loaded.
    with env_override(cell.config.hydra.job.env_set), nothing_begun():
        import lozo_bench.launch.loaded  # noqa: F401
    before = written_at(cell.folder / RESULT)
    code = Code(run_as_hydra_job(cell.config))
    status = cell.status()
    if code in (Code.busy, Code.skipped):
        return skipped(status, code)
    if code is Code.finished and before and written_at(cell.folder / RESULT) == before:
        return skipped(status, code)
    return Ended(status, code)


class Turns:
    """Prints which cell begins, and how long all that are left will take.

    Args:
        cells: the number of cells.
        done: the number of those that an earlier batch ran.
    """

    def __init__(self, cells: int, done: int = 0) -> None:
        self.cells, self.done = cells, done
        self._seconds: list[float] = []
        self._began = 0.0
        self._console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)

    def begin(self, name: str) -> None:
        """Print ``cell 3/9: NAME, sweep ETA 0:02:10``."""
        self._began = time.monotonic()
        eta = f", sweep ETA {self._left()}" if self._seconds else ""
        self._console.print(f"cell {self.done + 1}/{self.cells}: {name}{eta}")

    def end(self, ran: bool) -> None:
        """Count a cell. Only those that ran say how long the others will take."""
        self.done += 1
        if ran:
            self._seconds.append(time.monotonic() - self._began)

    def _left(self) -> timedelta:
        mean = sum(self._seconds) / len(self._seconds)
        return timedelta(seconds=round(mean * (self.cells - self.done)))
