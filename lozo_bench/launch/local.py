"""``hydra/launcher=local``: each cell in its own process on this machine, so many at once.

A cell that raises, exits or is killed never stops the others. A fork server imports torch and
transformers once, and each cell is a fresh fork of it, made before anything touches CUDA.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

from hydra.core.utils import JobReturn, JobStatus, configure_log, env_override, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from lozo_bench import launch
from lozo_bench.errors import bad_value
from lozo_bench.launch.cell import PRELOAD
from lozo_bench.launch.gpus import chosen
from lozo_bench.launch.planning import plan
from lozo_bench.launch.pool import Pool
from lozo_bench.launch.screen import Screen
from lozo_bench.launch.signals import ignored
from lozo_bench.runs.outcome import Code
from lozo_bench.status import print_table
from lozo_bench.stop import Stop


class LocalLauncher(Launcher):
    """Hydra's way to the pool.

    Args:
        at_once: so many cells run at a time.
        gpus: so many of the visible GPUs are used; None: all.
    """

    def __init__(self, at_once: int = 1, gpus: int | None = None) -> None:
        self.at_once, self.gpus = at_once, gpus
        self._config: DictConfig
        self._context: HydraContext

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """What Hydra has for its launchers. The task is always `lozo_bench.run.run_cell`.

        Raises:
            UserError: a setting is out of range.
        """
        if not isinstance(self.at_once, int) or self.at_once < 1:
            raise bad_value("hydra.launcher.at_once", self.at_once, "a whole number >= 1")
        self._config, self._context = config, hydra_context

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the cells and print how they ended."""
        setup_globals()
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        gpus = chosen(self.gpus)
        with Stop() as stop, Screen(len(job_overrides)) as screen:
            processes = self._fork_server()
            pool = Pool(processes, self.at_once, gpus, self.gpus == 0, stop, screen)
            done = pool.run(plan(self._context, self._config, job_overrides, initial_job_idx))
        print_table([ended.cell for ended in done])
        left = len(job_overrides) - len(done)
        if left:
            print(f"{left} more did not begin; the same command goes on with all of them")
        codes = [ended.code for ended in done]
        launch.ended([*codes, Code.stopped] if stop.signal else codes)
        # All are returned as completed: Hydra would raise the first failure, and leave out batches.
        return [JobReturn(status=JobStatus.COMPLETED, _return_value=int(code)) for code in codes]

    def _fork_server(self) -> ForkServerContext:
        """A fork server with everything imported. OpenMP reads its settings as it is loaded."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            [*PRELOAD, "wandb"] if self._config.tracking.wandb else PRELOAD
        )
        with env_override(self._config.hydra.job.env_set), ignored():
            forkserver.ensure_running()
        return context
