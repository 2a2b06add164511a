"""Who works in a run's folder: a process, told apart from all others that there are and were."""

from __future__ import annotations

import os
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock.

    Args:
        host: the machine's name.
        pid: the process on it.
        since: by that machine's clock, for people.
        token: of this one time that the lock was taken.
        space: the machine's boot and the process's pid namespace: where ``pid`` means something.
        started: when the process started, in ticks since the boot: a pid comes again.
        job: the SLURM job, or its task of an array; empty without SLURM.
        life: how often that job has been put back into the queue.
    """

    host: str
    pid: int
    since: str
    token: str
    space: str
    started: str
    job: str
    life: int

    def __str__(self) -> str:
        job = f" (SLURM job {self.job.rpartition('/')[2]})" if self.job else ""
        return f"process {self.pid} on {self.host}{job}, since {self.since}"

    def is_near(self, other: Holder) -> bool:
        """Whether they can look each other up by pid."""
        return (self.host, self.space) == (other.host, other.space)

    def is_gone(self) -> bool:
        """Whether a process of this machine has ended; its pid may be another's by now."""
        return _started(self.pid) != self.started

    def is_former(self, other: Holder) -> bool:
        """Whether this is of the SLURM job that ``other`` is of, before it was put back."""
        return bool(self.job) and self.job == other.job and self.life < other.life


def myself() -> Holder:
    """This process, with a new token."""
    pid = os.getpid()
    return Holder(
        host=socket.gethostname(),
        pid=pid,
        since=time.strftime("%Y-%m-%d %H:%M:%S"),
        token=uuid.uuid4().hex[:16],
        space=_space(),
        started=_started(pid) or "",
        job=_job(),
        life=int(os.environ.get("SLURM_RESTART_COUNT") or 0),
    )


def _job() -> str:
    """``cluster/123`` or ``cluster/123_4``: the same when the job runs again."""
    told = os.environ.get
    job, task = told("SLURM_ARRAY_JOB_ID"), told("SLURM_ARRAY_TASK_ID")
    name = f"{job}_{task}" if job and task else told("SLURM_JOB_ID", "")
    return f"{told('SLURM_CLUSTER_NAME', '')}/{name}" if name else ""


def _space() -> str:
    """Two processes can look each other up by pid if theirs is the same."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""  # no Linux: the host's name must do


def _started(pid: int) -> str | None:
    """When a process started; None if there is none, or only what is left of one."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return _started_elsewhere(pid)
    fields = told.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _started_elsewhere(pid: int) -> str | None:
    """`_started` where there is no /proc."""
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # it is another user's, and lives
    return ""
