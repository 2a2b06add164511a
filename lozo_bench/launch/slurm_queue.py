"""Asks SLURM for the state of jobs with ``squeue`` and ``scontrol``.

SLURM's accounting database is used only if there is one.
"""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

log = logging.getLogger(__name__)

# A job in any other state does not run, and will not run unless it is submitted again.
_ALIVE = {
    "PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING",
    "STOPPED", "RESIZING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT",
    "RESV_DEL_HOLD",
}  # fmt: skip
_FORGOTTEN = "FORGOTTEN"
_REASONS = {
    _FORGOTTEN: "its job is gone, and SLURM has forgotten it",
    "TIMEOUT": "TIMEOUT: it was killed at its time limit before it had saved and returned to "
    "the queue; raise hydra.launcher.signal_delay_s",
    "OUT_OF_MEMORY": "OUT_OF_MEMORY: raise hydra.launcher.mem_gb, or use a smaller batch_size",
    "CANCELLED": "CANCELLED, by scancel or by an administrator; its progress is saved",
    "NODE_FAIL": "NODE_FAIL: its node went down; its progress is saved",
}
# The exit code of a cell that was asked to stop and did: 128 + SIGTERM, as a shell reports it.
STOPPED = 143
# A result may take this long to arrive through a file server after its job has ended.
GRACE_S = 15.0
# Seconds between two requests: short at first, then longer, as a controller serves many jobs.
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 30.0
_REQUEST_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class JobState:
    """The state of a job, as SLURM names it, and the reason if the job waits."""

    state: str
    reason: str = ""

    @property
    def alive(self) -> bool:
        """Whether the job is running or will run."""
        return self.state in _ALIVE


def job_states(jobs: Iterable[str]) -> Mapping[str, JobState] | None:
    """Return the states of jobs by id, without those that SLURM has forgotten.

    Args:
        jobs: ids, such as ``12``, or ``12_3`` for a task of an array.

    Returns:
        None if SLURM does not answer.
    """
    arrays = sorted({job.partition("_")[0] for job in jobs})
    done = _run(
        "squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r",
        f"--jobs={','.join(arrays)}",
    )  # fmt: skip
    if done.returncode:
        return {} if "Invalid job id" in done.stderr else None
    rows = (line.strip().split("|", 2) for line in done.stdout.splitlines() if "|" in line)
    return {job: JobState(state, reason) for job, state, reason in rows}


class Watch:
    """Keeps the last known state of jobs and limits how often SLURM is asked."""

    def __init__(self) -> None:
        self._known: dict[str, JobState] = {}
        self._dead_since: dict[str, float] = {}
        self._next, self._pause = time.monotonic(), _SHORTEST_PAUSE_S
        self._silent = False

    def look(self, jobs: Iterable[str]) -> None:
        """Ask SLURM for the states of the jobs if the pause since the last request is over."""
        now = time.monotonic()
        if now < self._next:
            return
        self._pause = min(1.5 * self._pause, _LONGEST_PAUSE_S)
        if self._dead_since:
            self._pause = _SHORTEST_PAUSE_S
        self._next = now + self._pause
        jobs = list(jobs)
        found = job_states(jobs)
        if (found is None) != self._silent:
            self._silent = found is None
            log.warning(
                "SLURM %s", "does not answer; still waiting" if self._silent else "answers again"
            )
        if found is None:
            return
        for job in jobs:
            self._known[job] = found.get(job, JobState(_FORGOTTEN))
            if self._known[job].alive:
                self._dead_since.pop(job, None)
            else:
                self._dead_since.setdefault(job, now)

    def is_dead(self, job: str) -> bool:
        """Return whether a job has ended long enough ago for its result to have arrived."""
        since = self._dead_since.get(job)
        return since is not None and time.monotonic() - since > GRACE_S

    def state_of(self, job: str) -> JobState:
        """Return the state of a job at the last request."""
        return self._known.get(job, JobState("PENDING"))


def why_dead(job: str, last_state: JobState) -> str:
    """Return why a job ended that reported nothing itself, and what to do about it."""
    state, code, signal = _exit_of(job, last_state.state)
    if state == "FAILED" and code == STOPPED:
        return "FAILED: one of its processes was told to end; its progress is saved"
    # srun exits with 128 + the signal that ended its task.
    signal = signal or max(code - 128, 0)
    if state == "FAILED" and signal:
        usual = "; out of memory is the usual reason" if signal == 9 else ""
        return f"FAILED: killed by signal {signal}{usual}"
    if state == "FAILED":
        return f"FAILED: exited with code {code}"
    return _REASONS.get(state, f"its job ended in state {state} without a result")


def _exit_of(job: str, state: str) -> tuple[str, int, int]:
    """Return state, exit code and signal of a job that has ended; (state, 0, 0) if unknown."""
    if state == _FORGOTTEN:  # the accounting database may still know it
        answer = _run("sacct", "-X", "-n", "-P", "-o", "State,ExitCode", "-j", job)
        found = re.match(r"(\w+)[^|]*\|(\d+):(\d+)", answer.stdout)
        return (found[1], int(found[2]), int(found[3])) if found else (state, 0, 0)
    answer = _run("scontrol", "-o", "show", "job", job)
    found = re.search(r"\bExitCode=(\d+):(\d+)", answer.stdout)
    return (state, int(found[1]), int(found[2])) if found else (state, 0, 0)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_REQUEST_TIMEOUT_S
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def rename_job(job: str, name: str) -> None:
    """Give a job the name that `squeue` lists. Without an answer from SLURM it keeps its name."""
    _run("scontrol", "update", f"JobId={job}", f"JobName={name}")


def can_submit() -> bool:
    """Return whether this machine can submit jobs."""
    return shutil.which("sbatch") is not None
