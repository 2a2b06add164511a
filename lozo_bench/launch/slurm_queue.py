"""What SLURM says of jobs, asked of ``squeue`` and ``scontrol``: accounting need not be there."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

log = logging.getLogger(__name__)

# A job in any other state does not run, and will not by itself.
_LIVES = {
    "PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING",
    "STOPPED", "RESIZING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT",
    "RESV_DEL_HOLD",
}  # fmt: skip
_FORGOTTEN = "FORGOTTEN"
_REASONS = {
    _FORGOTTEN: "its job is gone, and SLURM has forgotten it",
    "TIMEOUT": "TIMEOUT: it was killed at its time limit before it had saved and gone back into "
    "the queue; raise hydra.launcher.signal_delay_s",
    "OUT_OF_MEMORY": "OUT_OF_MEMORY: raise hydra.launcher.mem_gb, or make batch_size smaller",
    "CANCELLED": "CANCELLED, by scancel or by an administrator; what it did is kept",
    "NODE_FAIL": "NODE_FAIL: its node went down; what it did is kept",
}
# The exit code of a cell that was told to stop, and has: a shell's of one that SIGTERM ended.
STOPPED = 143
# A result may take so long to come through a file server after its job has ended.
GRACE_S = 15.0
# The first question comes soon, later ones seldom: a controller serves thousands of jobs.
_SOONEST_S, _SELDOM_S = 2.0, 30.0
_ANSWERS_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a job stands: SLURM's name for its state, and the reason if it waits."""

    state: str
    reason: str = ""

    @property
    def lives(self) -> bool:
        """Whether it runs, or will."""
        return self.state in _LIVES


def standings(jobs: Iterable[str]) -> Mapping[str, Standing] | None:
    """How jobs stand, by id; those that SLURM has forgotten are left out.

    Args:
        jobs: ids: ``12``, or ``12_3`` for a task of an array.

    Returns:
        None if SLURM does not answer.
    """
    arrays = sorted({job.partition("_")[0] for job in jobs})
    done = _ask(
        "squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r",
        f"--jobs={','.join(arrays)}",
    )  # fmt: skip
    if done.returncode:
        return {} if "Invalid job id" in done.stderr else None
    rows = (line.strip().split("|", 2) for line in done.stdout.splitlines() if "|" in line)
    return {job: Standing(state, reason) for job, state, reason in rows}


class Watch:
    """Looks after jobs, and asks SLURM no more often than is polite."""

    def __init__(self) -> None:
        self._known: dict[str, Standing] = {}
        self._dead_since: dict[str, float] = {}
        self._next, self._pause = time.monotonic(), _SOONEST_S
        self._silent = False

    def look(self, jobs: Iterable[str]) -> None:
        """Ask how they stand, if it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        self._pause = min(1.5 * self._pause, _SELDOM_S)
        if self._dead_since:
            self._pause = _SOONEST_S
        self._next = now + self._pause
        jobs = list(jobs)
        found = standings(jobs)
        if (found is None) != self._silent:
            self._silent = found is None
            log.warning("SLURM %s", "does not answer; still waiting" if self._silent else "is back")
        if found is None:
            return
        for job in jobs:
            self._known[job] = found.get(job, Standing(_FORGOTTEN))
            if self._known[job].lives:
                self._dead_since.pop(job, None)
            else:
                self._dead_since.setdefault(job, now)

    def is_dead(self, job: str) -> bool:
        """Whether a job is gone, and has been long enough for its result to have come."""
        since = self._dead_since.get(job)
        return since is not None and time.monotonic() - since > GRACE_S

    def standing(self, job: str) -> Standing:
        """How a job stood when it was last asked for."""
        return self._known.get(job, Standing("PENDING"))


def why_dead(job: str, standing: Standing) -> str:
    """Why a job ended that could not say it itself, and what to do about it."""
    state, code, signal = _ended(job, standing.state)
    if state == "FAILED" and code == STOPPED:
        return "FAILED: it, or another of its processes, was told to end; what it did is kept"
    # srun ends with 128 + the signal that ended its task.
    signal = signal or max(code - 128, 0)
    if state == "FAILED" and signal:
        usual = "; out of memory is the usual reason" if signal == 9 else ""
        return f"FAILED: killed by signal {signal}{usual}"
    if state == "FAILED":
        return f"FAILED: exited with code {code}"
    return _REASONS.get(state, f"its job ended in state {state}, without a result")


def _ended(job: str, state: str) -> tuple[str, int, int]:
    """State, exit code and signal of a job that is gone; (state, 0, 0) where nobody knows more."""
    if state == _FORGOTTEN:  # but not by the accounts, where there are any
        told = _ask("sacct", "-X", "-n", "-P", "-o", "State,ExitCode", "-j", job)
        found = re.match(r"(\w+)[^|]*\|(\d+):(\d+)", told.stdout)
        return (found[1], int(found[2]), int(found[3])) if found else (state, 0, 0)
    told = _ask("scontrol", "-o", "show", "job", job)
    found = re.search(r"\bExitCode=(\d+):(\d+)", told.stdout)
    return (state, int(found[1]), int(found[2])) if found else (state, 0, 0)


def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_ANSWERS_WITHIN_S
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def is_here() -> bool:
    """Whether this machine can submit jobs."""
    return shutil.which("sbatch") is not None
