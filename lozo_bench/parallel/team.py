"""The processes of a run: who this one is, and how they find each other.

`torchrun` says it in RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. Under SLURM the
same is read off the job step, whether `srun` started it or submitit did.
"""

from __future__ import annotations

import atexit
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

from lozo_bench.engine.sharing import ALONE, Sharing
from lozo_bench.errors import UserError, bad_value
from lozo_bench.parallel.split import SplitBatch, SplitCandidates
from lozo_bench.parallel.wire import Wire

SPLITS: Mapping[str, Callable[[Wire], Sharing]] = {
    "batch": SplitBatch,
    "candidates": SplitCandidates,
}


@dataclass(frozen=True, slots=True)
class Team:
    """This process among those of the run. ``wire`` is None for one that is alone."""

    rank: int = 0
    size: int = 1
    wire: Wire | None = None
    sharing: Sharing = ALONE

    def from_first(self, data: bytes) -> bytes:
        """What the first process has."""
        return data if self.wire is None else self.wire.from_first(data)

    @property
    def sent_bytes(self) -> int:
        """What this process gave to collective calls so far."""
        return 0 if self.wire is None else self.wire.sent


def join(split: str, timeout_s: float) -> Team:
    """Meet the other processes, if the environment says that there are any.

    Raises:
        UserError: they do not come, or the environment says something impossible.
    """
    place = _place(os.environ)
    if place is None:
        return Team()
    rank, size, local = place
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        if local >= count > 1:
            raise bad_value("LOCAL_RANK", local, f"this machine has {count} GPUs: one a process")
        torch.cuda.set_device(local % count)
    if not distributed.is_initialized():
        try:
            distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                rank=rank,
                world_size=size,
                timeout=timedelta(seconds=timeout_s),
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"process {rank} of {size} did not meet the others at "
                f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')} "
                f"({str(error).splitlines()[0]}); is every one started, and the port free?"
            ) from error
        atexit.register(_leave)
    wire = Wire(rank, size)
    return Team(rank, size, wire, SPLITS[split](wire))


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _place(environment: Mapping[str, str]) -> tuple[int, int, int] | None:
    """(rank, size, local rank); None for a process by itself."""
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "RANK" not in environment:
        _say_it_as_torchrun(environment)
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size < 2:
        return None
    return int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", 0))


def _say_it_as_torchrun(environment: Mapping[str, str]) -> None:
    nodes = environment["SLURM_STEP_NODELIST"]
    told = subprocess.run(
        ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
    )
    # The same for all of a job step's processes, and another for jobs beside it on a node.
    port = 20_000 + int(environment["SLURM_JOB_ID"]) % 20_000
    os.environ.update(
        RANK=environment["SLURM_PROCID"],
        WORLD_SIZE=environment["SLURM_STEP_NUM_TASKS"],
        LOCAL_RANK=environment["SLURM_LOCALID"],
        MASTER_ADDR=told.stdout.split()[0],
        MASTER_PORT=str(port),
    )
