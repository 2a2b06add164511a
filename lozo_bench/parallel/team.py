"""The processes of a run: the rank of this one, and how they connect to each other.

`torchrun` sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. Under SLURM, the same
values are read from the job step, whether `srun` or submitit started it.
"""

from __future__ import annotations

import atexit
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import distributed

from lozo_bench.engine.sharing import ALONE, Sharing
from lozo_bench.errors import bad_value
from lozo_bench.parallel.collectives import Collectives
from lozo_bench.parallel.connect import connect, leave
from lozo_bench.parallel.split import SplitBatch, SplitCandidates

SPLITS: Mapping[str, Callable[[Collectives], Sharing]] = {
    "batch": SplitBatch,
    "candidates": SplitCandidates,
}


@dataclass(frozen=True, slots=True)
class Team:
    """This process among those of the run. ``wire`` is None if it is the only one."""

    rank: int = 0
    size: int = 1
    wire: Collectives | None = None
    sharing: Sharing = ALONE

    def from_first(self, data: bytes) -> bytes:
        """Return the first process's ``data``."""
        return data if self.wire is None else self.wire.from_first(data)

    @property
    def sent_bytes(self) -> int:
        """The number of bytes that this process has sent in collective calls."""
        return 0 if self.wire is None else self.wire.sent


def join(split: str, timeout_s: float, check: Callable[[], None] = lambda: None) -> Team:
    """Connect to the other processes of the run, if the environment names any.

    Args:
        split: how work is divided among them.
        timeout_s: how long to wait for the others, now and later.
        check: called while waiting; raises Stopped if this process was asked to stop.

    Raises:
        UserError: they do not connect in time, or the environment is inconsistent.
    """
    position = _position(os.environ)
    if position is None:
        return Team()
    rank, size, local = position
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        if local >= count > 1:
            raise bad_value("LOCAL_RANK", local, f"less than {count}, as each needs a GPU")
        torch.cuda.set_device(local % count)
    if not distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        connect(backend, rank, size, timeout_s, check)
        atexit.register(leave)
    wire = Collectives(rank, size, check)
    return Team(rank, size, wire, SPLITS[split](wire))


def _position(environment: Mapping[str, str]) -> tuple[int, int, int] | None:
    """Return (rank, size, local rank), or None if this is the run's only process."""
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "RANK" not in environment:
        _set_torchrun_variables(environment)
    size = _number("WORLD_SIZE", 1)
    if size < 2:
        return None
    rank = _number("RANK")
    if rank >= size:
        raise bad_value("RANK", rank, f"0 to {size - 1}, as WORLD_SIZE is {size}")
    return rank, size, _number("LOCAL_RANK", 0)


def _number(variable: str, default: int | None = None) -> int:
    given = os.environ.get(variable, "" if default is None else str(default))
    if not given.isdecimal():
        raise bad_value(variable, given, "a whole number, as torchrun sets it for each process")
    return int(given)


def _set_torchrun_variables(environment: Mapping[str, str]) -> None:
    nodes = environment["SLURM_STEP_NODELIST"]
    listed = subprocess.run(
        ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
    )
    # All processes of a job step compute the same port; other jobs on a node get another one.
    port = 20_000 + int(environment["SLURM_JOB_ID"]) % 20_000
    os.environ.update(
        RANK=environment["SLURM_PROCID"],
        WORLD_SIZE=environment["SLURM_STEP_NUM_TASKS"],
        LOCAL_RANK=environment["SLURM_LOCALID"],
        MASTER_ADDR=listed.stdout.split()[0],
        MASTER_PORT=str(port),
    )
