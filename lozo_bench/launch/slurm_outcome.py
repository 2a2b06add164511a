"""Which cells need a job, which have one in SLURM already, and what became of a job."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lozo_bench.config import Rerun
from lozo_bench.errors import UserError
from lozo_bench.launch.cells import Ended, Planned, ended, failed, left_alone
from lozo_bench.launch.slurm_queue import standings
from lozo_bench.runs.atomic import write_text
from lozo_bench.runs.lock import holder
from lozo_bench.runs.outcome import FAILED, RESULT, Code, written_at
from lozo_bench.status import State

# In a cell's folder: its job, so that the same command finds it again.
JOB = "slurm.json"


@dataclass(frozen=True, slots=True)
class Job:
    """A cell in SLURM.

    Args:
        planned: the cell.
        id: ``12``, or ``12_3`` for a task of an array.
        logs: submitit's folder for it.
        result_before: when the ``result.json`` was written that was there before; 0 without one.
        failure_before: the same of ``failed.json``.
    """

    planned: Planned
    id: str
    logs: Path
    result_before: int
    failure_before: int

    @property
    def log(self) -> Path:
        """What the first process of the job printed."""
        return self.logs / f"{self.id}_0_log.out"

    def remember(self) -> None:
        """Write down in the cell's folder that it is in SLURM."""
        before = [self.result_before, self.failure_before]
        told = {"job": self.id, "logs": str(self.logs), "before": before}
        write_text(self.planned.folder / JOB, json.dumps(told) + "\n")


def submitted(planned: Planned, job: str, logs: Path) -> Job:
    """The job of a cell, just after it was submitted."""
    planned.folder.mkdir(parents=True, exist_ok=True)
    return Job(
        planned, job, logs, written_at(planned.folder / RESULT), written_at(planned.folder / FAILED)
    )


def sort_out(cells: Sequence[Planned]) -> tuple[list[Ended], list[Job], list[Planned]]:
    """What there is nothing to do for, what is in SLURM already, and what is to be submitted.

    Raises:
        UserError: SLURM does not answer.
    """
    done, open_cells = [], []
    for planned in cells:
        settled = _nothing_to_do(planned)
        if settled is None:
            open_cells.append(planned)
        else:
            done.append(settled)
    jobs = _in_slurm([job for cell in open_cells if (job := _remembered(cell))])
    taken = {id(job.planned) for job in jobs}
    missing = []
    for planned in open_cells:
        who = None if id(planned) in taken else holder(planned.folder)
        if who is not None:
            done.append(ended(planned.look(), State.skipped, f"run by {who}", Code.busy))
        elif id(planned) not in taken:
            missing.append(planned)
    return done, jobs, missing


def answered(job: Job) -> Ended | None:
    """How a job ended, by what it left for the launcher; None if it has not ended.

    One that goes back into the queue leaves nothing.
    """
    from submitit.core.utils import pickle_load

    path = job.logs / f"{job.id}_0_result.pkl"
    if not path.exists():
        return None
    outcome, told = pickle_load(path)
    if outcome == "success":
        return judged(job, Code(told), f"it ended with code {told}, and left no result")
    if "timed-out too many times" in str(told):
        reason = "TIMEOUT, more often than hydra.launcher.max_num_timeout; what it did is kept"
        return judged(job, None, reason)
    # The end of a traceback; what follows the error's first line is indented.
    lines = [line for line in str(told).splitlines() if line and not line.startswith(" ")]
    return judged(job, None, lines[-1])


def judged(job: Job, code: Code | None, reason: str) -> Ended:
    """How a job ended.

    Args:
        job: one that has ended.
        code: what it returned; None if it did not come that far.
        reason: why it failed, if it has not said that itself.
    """
    cell = job.planned.look()
    if written_at(cell.folder / RESULT) not in (0, job.result_before):
        return Ended(cell, Code.finished)
    if written_at(cell.folder / FAILED) not in (0, job.failure_before):
        return ended(cell, State.failed, cell.note, code or Code.defect)
    if code is Code.finished and cell.state is State.finished:
        return left_alone(cell, code)
    if code in (Code.busy, Code.skipped):
        return left_alone(cell, code)
    return failed(cell, f"{reason}; see {job.log}")


def refresh(job: Job) -> None:
    """Make an NFS client look at the server again for what a job has left."""
    with suppress(OSError):  # the folder is another user's, or not there
        os.chmod(job.logs, job.logs.stat().st_mode)  # noqa: PTH101


def _nothing_to_do(planned: Planned) -> Ended | None:
    rerun = planned.config.rerun
    if rerun is not Rerun.all and (cell := planned.look()).state is State.finished:
        return left_alone(cell, Code.finished)
    if rerun is Rerun.failed and not (planned.folder / FAILED).exists():
        return left_alone(planned.look(), Code.skipped)
    return None


def _remembered(planned: Planned) -> Job | None:
    """The job that a cell was last submitted as; it may be long gone."""
    try:
        told = json.loads((planned.folder / JOB).read_text(encoding="utf-8"))
        return Job(planned, told["job"], Path(told["logs"]), *told["before"])
    except FileNotFoundError:
        return None


def _in_slurm(jobs: Sequence[Job]) -> list[Job]:
    """Those of the jobs that run or will."""
    if not jobs:
        return []
    found = standings(job.id for job in jobs)
    if found is None:
        raise UserError("SLURM does not answer squeue; the same command later goes on")
    return [job for job in jobs if job.id in found and found[job.id].lives]
