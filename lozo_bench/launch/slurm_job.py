"""The function that a SLURM job runs through submitit: one cell, requeued when it is stopped."""

from __future__ import annotations

import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from subprocess import SubprocessError
from typing import Any

from omegaconf import DictConfig

from lozo_bench.launch.child import run_as_hydra_job
from lozo_bench.launch.slurm_queue import STOPPED, rename_job
from lozo_bench.runs.outcome import Code

log = logging.getLogger(__name__)
# All processes of a job get the signal, within this time of each other.
_SIGNAL_COMES_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class SlurmCell:
    """A cell to run. Submitit pickles it for the job, and again when it requeues the job.

    Args:
        config: the composed config, with its ``hydra`` node.
        cwd: the working directory of the command.
        name: what `squeue` shows while the cell runs. All waiting jobs of an array are one line.
    """

    config: DictConfig
    cwd: Path
    name: str = ""

    def __call__(self) -> int:
        """Run the cell and return its `Code`, which submitit stores for the launcher.

        A stopped cell has no code yet. Its job ends without a stored result, so that SLURM or the
        user who stopped it decides whether it runs again. If several processes share the cell, the
        first one reports for all. The others must exit with code 0, because SLURM may otherwise
        kill the first one before it has requeued the job.
        """
        os.chdir(self.cwd)
        self._rename()
        try:
            code = run_as_hydra_job(self.config)
        except SubprocessError as error:
            # SLURM may already have requeued a job that it preempts.
            log.warning("this process could not requeue the job: %s", error)
            code = Code.stopped
        if code == Code.stopped and not int(os.environ.get("SLURM_PROCID", 0)):
            if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
                # Another process of the cell told this one to stop. Wait until the signal reaches
                # this process too: submitit's handler then requeues the job.
                time.sleep(_SIGNAL_COMES_WITHIN_S)
            sys.exit(STOPPED)
        return code

    def _rename(self) -> None:
        job, name = os.environ.get("SLURM_JOB_ID"), getattr(self, "name", "")  # of a former version
        if job and name and not int(os.environ.get("SLURM_PROCID", 0)):
            rename_job(job, name)

    def checkpoint(self) -> Any:
        """Return the same cell for submitit to requeue: it resumes from the files in its folder."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
