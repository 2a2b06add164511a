"""Identifies the process that owns a lock, across machines, containers and requeued jobs."""

from __future__ import annotations

import os
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LockOwner:
    """The process that owns a lock.

    Args:
        host: the machine's name.
        pid: the process id on this machine.
        since: when it took the lock, by this machine's clock; shown to users only.
        token: unique for each time that a lock is taken.
        space: the machine's boot id and the pid namespace, within which ``pid`` is valid.
        started: when the process started, in clock ticks since the boot: pids are reused.
        job: the SLURM job, or its task of an array; empty without SLURM.
        life: how often this job has been requeued.
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

    def shares_pids_with(self, other: LockOwner) -> bool:
        """Return whether both processes see each other's pids."""
        return (self.host, self.space) == (other.host, other.space)

    def has_ended(self) -> bool:
        """Return whether this process, of this machine, has ended; its pid may be reused."""
        return _started(self.pid) != self.started

    def is_earlier_start_of(self, other: LockOwner) -> bool:
        """Return whether this process ran the SLURM job of ``other`` before a requeue."""
        return bool(self.job) and self.job == other.job and self.life < other.life


def myself() -> LockOwner:
    """Return this process as a lock owner with a new token."""
    pid = os.getpid()
    return LockOwner(
        host=socket.gethostname(),
        pid=pid,
        since=time.strftime("%Y-%m-%d %H:%M:%S"),
        token=uuid.uuid4().hex[:16],
        space=_pid_space(),
        started=_started(pid) or "",
        job=_slurm_job(),
        life=int(os.environ.get("SLURM_RESTART_COUNT") or 0),
    )


def _slurm_job() -> str:
    """Return ``cluster/123`` or ``cluster/123_4``, the same in every start of a job; else empty."""
    variable = os.environ.get
    job, task = variable("SLURM_ARRAY_JOB_ID"), variable("SLURM_ARRAY_TASK_ID")
    name = f"{job}_{task}" if job and task else variable("SLURM_JOB_ID", "")
    return f"{variable('SLURM_CLUSTER_NAME', '')}/{name}" if name else ""


def _pid_space() -> str:
    """Return an id of boot and pid namespace, shared by processes that see each other's pids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""  # not Linux: only the host's name identifies it


def _started(pid: int) -> str | None:
    """Return when a process started; None if it does not exist or has ended (a zombie)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return _started_elsewhere(pid)
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _started_elsewhere(pid: int) -> str | None:
    """Return the same as `_started` on systems without /proc, with an empty start time."""
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # another user's process, which exists
    return ""
