"""What a SLURM job does: one cell, through submitit, which puts it back into the queue."""

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

from lozo_bench.launch.cell import run_as_hydra_job
from lozo_bench.launch.slurm_queue import STOPPED
from lozo_bench.runs.outcome import Code

log = logging.getLogger(__name__)
# Every process of a job gets the signal, but not at the same moment.
_SIGNAL_COMES_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class SlurmCell:
    """A cell, as submitit pickles it for the job and again when the job goes back into the queue.

    Args:
        config: composed, with its ``hydra`` node.
        cwd: where the command was given.
    """

    config: DictConfig
    cwd: Path

    def __call__(self) -> int:
        """Run the cell and return its `Code`; submitit keeps it for the launcher.

        One that was stopped has none as yet: the job ends without an answer, so that whoever asked
        it to stop decides whether it comes again. Of several processes the first answers for all;
        the others must end well, or SLURM may end the first before it is back in the queue.
        """
        os.chdir(self.cwd)
        try:
            code = run_as_hydra_job(self.config)
        except SubprocessError as error:
            # SLURM that preempts a job may have put it back into the queue already.
            log.warning("not put back into the queue from here: %s", error)
            code = Code.stopped
        if code == Code.stopped and not int(os.environ.get("SLURM_PROCID", 0)):
            if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
                # Another process told this one to stop: the signal, which submitit awaits, follows.
                time.sleep(_SIGNAL_COMES_WITHIN_S)
            sys.exit(STOPPED)
        return code

    def checkpoint(self) -> Any:
        """The same again: the cell goes on from what is in its folder."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
