"""``hydra/launcher=slurm``: each cell is a job of a SLURM array, submitted through submitit.

The launcher waits for all jobs, whatever becomes of single ones, and notices those that died
without a word even where SLURM keeps no accounts. It may be interrupted: the jobs go on, and the
same command waits for them again.
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

from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher as Submitit

from lozo_bench import launch
from lozo_bench.errors import UserError
from lozo_bench.launch.cells import Ended, Planned
from lozo_bench.launch.planning import plan
from lozo_bench.launch.slurm_job import SlurmCell
from lozo_bench.launch.slurm_outcome import Job, answered, judged, refresh, sort_out, submitted
from lozo_bench.launch.slurm_queue import Watch, is_here, why_dead
from lozo_bench.launch.slurm_screen import SlurmScreen
from lozo_bench.status import print_table
from lozo_bench.stop import Stop

_LOOK_UP_S = 0.5
# Python with the signal ignored until submitit handles it: it would end a job that just begins.
_DEAF = """sh -c 'trap "" USR2; exec "$0" "$@"'"""


class SlurmLauncher(Submitit):
    """Hydra's way to SLURM; its settings are those of hydra-submitit-launcher."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Submit the cells that have something to do, wait, and print how all ended.

        Raises:
            UserError: there is no SLURM here, or it does not accept the jobs.
            KeyboardInterrupt: a signal came; the jobs go on.
        """
        config, context = self.config, self.hydra_context
        assert config is not None
        assert context is not None
        setup_globals()
        configure_log(config.hydra.hydra_logging, config.hydra.verbose)
        cells = list(plan(context, config, job_overrides, initial_job_idx))
        done, jobs, missing = sort_out([cell for cell in cells if isinstance(cell, Planned)])
        done += [cell for cell in cells if isinstance(cell, Ended)]
        with Stop() as stop, SlurmScreen(len(jobs) + len(missing)) as screen:
            for job in jobs:
                screen.line(f"{job.planned.folder.name}: waiting for job {job.id}, sent before")
            if missing:
                jobs += self._submit(missing, screen)
            done += _wait(jobs, stop, screen)
        print_table(sorted((ended.cell for ended in done), key=lambda cell: cell.folder))
        codes = [ended.code for ended in done]
        launch.ended(codes)
        # All are returned as completed: Hydra would raise the first failure, and leave out batches.
        return [JobReturn(status=JobStatus.COMPLETED, _return_value=int(code)) for code in codes]

    def _submit(self, cells: Sequence[Planned], screen: SlurmScreen) -> list[Job]:
        """An array job, or a plain one for a single cell."""
        if not is_here():
            raise UserError(
                "hydra/launcher: there is no sbatch on this machine; give the command where SLURM "
                "is, or use hydra/launcher=local"
            )
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            # Submitit prints what sbatch says, and raises it too.
            with _outside_of_jobs(), redirect_stderr(io.StringIO()):
                executor = self._executor()
                with executor.batch():
                    sent = [executor.submit(SlurmCell(cell.config, Path.cwd())) for cell in cells]
        except (FailedJobError, FailedSubmissionError) as error:
            raise UserError(f"SLURM does not accept the jobs: {error}") from error
        jobs = [
            submitted(cell, told.job_id, told.paths.folder)
            for cell, told in zip(cells, sent, strict=True)
        ]
        for job in jobs:
            job.remember()
            screen.line(f"job {job.id}: {job.planned.folder.name}")
        count = f"{len(jobs)} job{'s' if len(jobs) > 1 else ''}"
        screen.line(f"{count} submitted; what they print is in {jobs[0].logs.parent}/JOB")
        return jobs

    def _executor(self) -> Any:
        """Submitit's, with the settings of ``hydra.launcher``."""
        import submitit

        params = dict(self.params)
        executor = submitit.AutoExecutor(
            folder=params.pop("submitit_folder"),
            cluster="slurm",
            slurm_max_num_timeout=params.pop("max_num_timeout"),
            slurm_python=f"{_DEAF} {shlex.quote(sys.executable)}",
        )
        if params["cpus_per_task"]:
            # Since SLURM 22.05 srun does not know what sbatch was asked for.
            params["srun_args"] = [f"--cpus-per-task={params['cpus_per_task']}"]
        common = {field.name for field in dataclasses.fields(BaseQueueConf)}
        executor.update_parameters(
            **{key if key in common else f"slurm_{key}": value for key, value in params.items()}
        )
        return executor


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide from a new job what SLURM says of the one that this may itself be in."""
    from submitit.helpers import clean_env

    settings = {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or name.startswith("SBATCH_")
    }
    with clean_env():
        os.environ.update(settings)
        yield


def _wait(jobs: Sequence[Job], stop: Stop, screen: SlurmScreen) -> list[Ended]:
    """Wait until all jobs have ended, well or not."""
    watch, waiting, done = Watch(), list(jobs), []
    while waiting:
        watch.look([job.id for job in waiting])
        for job in list(waiting):
            ended = _ended(job, watch)
            if ended is not None:
                waiting.remove(job)
                done.append(ended)
                screen.ended(job.id, ended.cell)
        screen.standings([watch.standing(job.id) for job in waiting])
        if waiting and stop.signal is not None:
            screen.line(_left(waiting))
            raise KeyboardInterrupt
        if waiting:
            time.sleep(_LOOK_UP_S)
    return done


def _ended(job: Job, watch: Watch) -> Ended | None:
    if not watch.standing(job.id).lives:
        refresh(job)
    ended = answered(job)
    if ended is None and watch.is_dead(job.id):
        return judged(job, None, why_dead(job.id, watch.standing(job.id)))
    return ended


def _left(jobs: Sequence[Job]) -> str:
    """What to know and to type about jobs that nobody waits for any more."""
    ids = " ".join(job.id for job in jobs)
    count = f"{len(jobs)} jobs go" if len(jobs) > 1 else "1 job goes"
    return (
        f"{count} on in SLURM: {ids}\n"
        f"  to cancel: scancel {ids}\n"
        "  the same command waits for what is there, and runs only what is missing"
    )
