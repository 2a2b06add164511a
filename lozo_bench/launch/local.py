"""``hydra/launcher=local``: runs each cell in its own process on this machine.

A cell that raises, exits or is killed never stops the others. A fork server imports torch and
transformers once; each cell is a new fork of it, made before anything touches CUDA.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

from hydra.core.utils import JobReturn, configure_log, env_override, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from lozo_bench import launch
from lozo_bench.errors import bad_value
from lozo_bench.launch.child import PRELOAD
from lozo_bench.launch.gpus import chosen
from lozo_bench.launch.planning import plan
from lozo_bench.launch.pool import Pool
from lozo_bench.launch.screen import Screen
from lozo_bench.launch.signals import ignored
from lozo_bench.runs.signals import StopSignal

# The second is imported when a wandb run starts and takes longer than the first, two seconds. A
# version of wandb without it is no error.
_WANDB = ["wandb", "wandb.sdk.launch.inputs.internal"]


class LocalLauncher(Launcher):
    """The Hydra launcher that runs the cells in a `Pool`.

    Args:
        at_once: the number of cells that run at the same time.
        gpus: the number of visible GPUs to use; None means all of them.
    """

    def __init__(self, at_once: int = 1, gpus: int | None = None) -> None:
        self.at_once, self.gpus = at_once, gpus
        self._config: DictConfig
        self._context: HydraContext

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra passes to a launcher. The task is always `run_cell`.

        Raises:
            UserError: a setting is out of range.
        """
        if not isinstance(self.at_once, int) or self.at_once < 1:
            raise bad_value("hydra.launcher.at_once", self.at_once, "a whole number >= 1")
        self._config, self._context = config, hydra_context

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the cells."""
        setup_globals()
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        gpus = chosen(self.gpus)
        with StopSignal() as stop, Screen(len(job_overrides)) as screen:
            processes = self._fork_server()
            pool = Pool(processes, self.at_once, gpus, self.gpus == 0, stop, screen)
            done = pool.run(plan(self._context, self._config, job_overrides, initial_job_idx))
        if stop.signal:
            launch.stop()
        return launch.jobs(done)

    def _fork_server(self) -> ForkServerContext:
        """Start a fork server that has imported everything a cell needs.

        The environment is set before the start because OpenMP reads its settings when it is loaded.
        """
        context = multiprocessing.get_context("forkserver")
        preload = [*_WANDB, *PRELOAD] if self._config.tracking.wandb else PRELOAD
        context.set_forkserver_preload(preload)
        with env_override(self._config.hydra.job.env_set), ignored():
            forkserver.ensure_running()
        return context
