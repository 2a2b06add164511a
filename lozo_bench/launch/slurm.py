"""``hydra/launcher=slurm``: each cell is a job of a SLURM array, submitted through submitit.

The launcher waits for all jobs, whatever happens to single ones. It notices jobs that died without
writing anything, even where SLURM keeps no accounting. It may be interrupted: the jobs continue,
and the same command waits for them again.
"""

from __future__ import annotations

import dataclasses
import io
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher as Submitit

from lozo_bench import launch
from lozo_bench.errors import UserError, counted
from lozo_bench.launch.cells import Ended, Planned
from lozo_bench.launch.planning import plan
from lozo_bench.launch.slurm_job import SlurmCell
from lozo_bench.launch.slurm_outcome import (
    SlurmJob,
    classified,
    refresh,
    split_by_status,
    stored_outcome,
    submitted,
)
from lozo_bench.launch.slurm_queue import Watch, can_submit, why_dead
from lozo_bench.launch.slurm_screen import SlurmScreen
from lozo_bench.runs.signals import StopSignal

_POLL_S = 0.5
# Start Python with SIGUSR2 ignored until submitit installs its handler: the default action of the
# signal would end a job that has only just begun.
_IGNORE_USR2 = """sh -c 'trap "" USR2; exec "$0" "$@"'"""


class SlurmLauncher(Submitit):
    """The Hydra launcher for SLURM; its settings are those of hydra-submitit-launcher."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Submit the cells that still need to run, and wait.

        Raises:
            UserError: this machine has no SLURM, or SLURM does not accept the jobs.
            KeyboardInterrupt: a signal came; the jobs continue.
        """
        config, context = self.config, self.hydra_context
        assert config is not None
        assert context is not None
        setup_globals()
        configure_log(config.hydra.hydra_logging, config.hydra.verbose)
        cells = list(plan(context, config, job_overrides, initial_job_idx))
        done, jobs, missing = split_by_status([cell for cell in cells if isinstance(cell, Planned)])
        done += [cell for cell in cells if isinstance(cell, Ended)]
        with StopSignal() as stop, SlurmScreen(len(jobs) + len(missing)) as screen:
            for job in jobs:
                screen.line(f"{job.planned.name}: waiting for job {job.id}, submitted earlier")
            if missing:
                jobs += self._submit(missing, screen)
            done += _wait(jobs, stop, screen)
        return launch.jobs(done)

    def _submit(self, cells: Sequence[Planned], screen: SlurmScreen) -> list[SlurmJob]:
        """Submit the cells as an array job, or as a plain job if there is only one."""
        if not can_submit():
            raise UserError(
                "hydra/launcher: there is no sbatch on this machine; run the command where SLURM "
                "is installed, or use hydra/launcher=local"
            )
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            # Submitit prints the error of sbatch and raises it too.
            with _without_job_environment(), redirect_stderr(io.StringIO()):
                executor = self._executor()
                with executor.batch():
                    from_submitit = [
                        executor.submit(SlurmCell(cell.config, Path.cwd(), _listed_name(cell)))
                        for cell in cells
                    ]
        except (FailedJobError, FailedSubmissionError) as error:
            raise UserError(f"SLURM does not accept the jobs: {error}") from error
        jobs = [
            submitted(cell, submitit_job.job_id, submitit_job.paths.folder)
            for cell, submitit_job in zip(cells, from_submitit, strict=True)
        ]
        for job in jobs:
            job.remember()
            screen.line(f"job {job.id}: {job.planned.name}")
        count = counted(len(jobs), "job")
        screen.line(f"{count} submitted; their output is in {jobs[0].logs.parent}/JOB")
        return jobs

    def _executor(self) -> Any:
        """Return submitit's executor with the settings of ``hydra.launcher``."""
        import submitit

        params = dict(self.params)
        executor = submitit.AutoExecutor(
            folder=params.pop("submitit_folder"),
            cluster="slurm",
            slurm_max_num_timeout=params.pop("max_num_timeout"),
            slurm_python=f"{_IGNORE_USR2} {shlex.quote(sys.executable)}",
        )
        if params["cpus_per_task"]:
            # Since SLURM 22.05, srun no longer takes this option over from sbatch.
            params["srun_args"] = [f"--cpus-per-task={params['cpus_per_task']}"]
        common = {field.name for field in dataclasses.fields(BaseQueueConf)}
        executor.update_parameters(
            **{key if key in common else f"slurm_{key}": value for key, value in params.items()}
        )
        return executor


def _listed_name(cell: Planned) -> str:
    """Return a job's name for `squeue`, which shows the first letters only."""
    return " ".join(filter(None, [cell.label, cell.folder.name]))


@contextmanager
def _without_job_environment() -> Iterator[None]:
    """Hide the variables of the SLURM job that the launcher may itself run in from new jobs."""
    from submitit.helpers import clean_env

    settings = {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or name.startswith("SBATCH_")
    }
    with clean_env():
        os.environ.update(settings)
        yield


def _wait(jobs: Sequence[SlurmJob], stop: StopSignal, screen: SlurmScreen) -> list[Ended]:
    """Wait until all jobs have ended, whether they succeeded or failed."""
    watch, waiting, done = Watch(), list(jobs), []
    while waiting:
        watch.look([job.id for job in waiting])
        for job in list(waiting):
            ended = _ended(job, watch)
            if ended is not None:
                waiting.remove(job)
                done.append(ended)
                screen.ended(job.planned.name, job.id, ended.cell)
        screen.states([watch.state_of(job.id) for job in waiting])
        if waiting and stop.signal is not None:
            screen.line(_how_to_continue(waiting))
            raise KeyboardInterrupt
        if waiting:
            time.sleep(_POLL_S)
    return done


def _ended(job: SlurmJob, watch: Watch) -> Ended | None:
    if not watch.state_of(job.id).alive:
        refresh(job)
    ended = stored_outcome(job)
    if ended is None and watch.is_dead(job.id):
        return classified(job, None, why_dead(job.id, watch.state_of(job.id)))
    return ended


def _how_to_continue(jobs: Sequence[SlurmJob]) -> str:
    """Return the lines for the user when the launcher ends before its jobs do."""
    ids = " ".join(job.id for job in jobs)
    count = f"{len(jobs)} jobs continue" if len(jobs) > 1 else "1 job continues"
    return (
        f"{count} in SLURM: {ids}\n"
        f"  to cancel them: scancel {ids}\n"
        "  the same command waits for these jobs and submits only what is missing"
    )
