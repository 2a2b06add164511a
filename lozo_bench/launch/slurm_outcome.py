"""Finds out which cells need a job, which have one in SLURM already, and how a job ended."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lozo_bench.config.schema import Rerun
from lozo_bench.errors import UserError
from lozo_bench.launch.cells import Ended, Planned, ended_as, failed, skipped
from lozo_bench.launch.slurm_queue import job_states
from lozo_bench.runs.atomic import write_text
from lozo_bench.runs.lock import lock_owner
from lozo_bench.runs.outcome import FAILED, RESULT, Code, written_at
from lozo_bench.runs.status import CellState

# The file in a cell's folder that names its job, so that the same command finds the job again.
JOB = "slurm.json"


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """The SLURM job of a cell.

    Args:
        planned: the cell.
        id: ``12``, or ``12_3`` for a task of an array.
        logs: submitit's folder for the job.
        result_before: modification time in ns of the ``result.json`` that existed before the job; 0
            without one.
        failure_before: the same for ``failed.json``.
    """

    planned: Planned
    id: str
    logs: Path
    result_before: int
    failure_before: int

    @property
    def log(self) -> Path:
        """The file with the output of the job's first process."""
        return self.logs / f"{self.id}_0_log.out"

    def remember(self) -> None:
        """Write the job's id into the cell's folder."""
        before = [self.result_before, self.failure_before]
        record = {"job": self.id, "logs": str(self.logs), "before": before}
        write_text(self.planned.folder / JOB, json.dumps(record) + "\n")


def submitted(planned: Planned, job: str, logs: Path) -> SlurmJob:
    """Return the `SlurmJob` of a cell that was just submitted."""
    planned.folder.mkdir(parents=True, exist_ok=True)
    return SlurmJob(
        planned, job, logs, written_at(planned.folder / RESULT), written_at(planned.folder / FAILED)
    )


def split_by_status(cells: Sequence[Planned]) -> tuple[list[Ended], list[SlurmJob], list[Planned]]:
    """Split the cells by what must be done for them.

    Returns:
        The cells that need nothing, the jobs that are already in SLURM, and the cells to submit.

    Raises:
        UserError: SLURM does not answer.
    """
    done, unfinished = [], []
    for planned in cells:
        nothing_to_do = _if_nothing_to_do(planned)
        if nothing_to_do is None:
            unfinished.append(planned)
        else:
            done.append(nothing_to_do)
    jobs = _in_slurm([job for cell in unfinished if (job := _last_job(cell))])
    in_slurm = {id(job.planned) for job in jobs}
    missing = []
    for planned in unfinished:
        owner = None if id(planned) in in_slurm else lock_owner(planned.folder)
        if owner is not None:
            done.append(ended_as(planned.status(), CellState.skipped, f"run by {owner}", Code.busy))
        elif id(planned) not in in_slurm:
            missing.append(planned)
    return done, jobs, missing


def stored_outcome(job: SlurmJob) -> Ended | None:
    """Return how a job ended from the result that submitit stored; None if it has not ended.

    A job that is requeued stores nothing.
    """
    from submitit.core.utils import pickle_load

    path = job.logs / f"{job.id}_0_result.pkl"
    if not path.exists():
        return None
    outcome, value = pickle_load(path)
    if outcome == "success":
        return classified(job, Code(value), f"it ended with code {value}, and wrote no result.json")
    if "timed-out too many times" in str(value):
        reason = "TIMEOUT, more often than hydra.launcher.max_num_timeout; its progress is saved"
        return classified(job, None, reason)
    # The last line of the traceback that is not indented is the first line of the error.
    lines = [line for line in str(value).splitlines() if line and not line.startswith(" ")]
    return classified(job, None, lines[-1])


def classified(job: SlurmJob, code: Code | None, reason: str) -> Ended:
    """Return how a job ended.

    Args:
        job: a job that has ended.
        code: the code that it returned; None if it died before that.
        reason: why it failed, used only if the cell did not write a reason itself.
    """
    cell = job.planned.status()
    if written_at(cell.folder / RESULT) not in (0, job.result_before):
        return Ended(cell, Code.finished)
    if written_at(cell.folder / FAILED) not in (0, job.failure_before):
        return ended_as(cell, CellState.failed, cell.note, code or Code.defect)
    if code is Code.finished and cell.state is CellState.finished:
        return skipped(cell, code)
    if code in (Code.busy, Code.skipped):
        return skipped(cell, code)
    return failed(cell, f"{reason}; see {job.log}")


def refresh(job: SlurmJob) -> None:
    """Make an NFS client ask the server again for the files of a job."""
    with suppress(OSError):  # another user owns the folder, or it does not exist
        os.chmod(job.logs, job.logs.stat().st_mode)  # noqa: PTH101


def _if_nothing_to_do(planned: Planned) -> Ended | None:
    rerun = planned.config.rerun
    if rerun is not Rerun.all and (cell := planned.status()).state is CellState.finished:
        return skipped(cell, Code.finished)
    if rerun is Rerun.failed and not (planned.folder / FAILED).exists():
        return skipped(planned.status(), Code.skipped)
    return None


def _last_job(planned: Planned) -> SlurmJob | None:
    """Return the job as which a cell was last submitted; SLURM may no longer know it."""
    try:
        record = json.loads((planned.folder / JOB).read_text(encoding="utf-8"))
        return SlurmJob(planned, record["job"], Path(record["logs"]), *record["before"])
    except FileNotFoundError:
        return None


def _in_slurm(jobs: Sequence[SlurmJob]) -> list[SlurmJob]:
    """Return the jobs that are running or queued."""
    if not jobs:
        return []
    found = job_states(job.id for job in jobs)
    if found is None:
        raise UserError(
            "squeue gets no answer from SLURM; run the same command again later to continue"
        )
    return [job for job in jobs if job.id in found and found[job.id].alive]
