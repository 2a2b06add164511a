"""Exchanges small vectors between the processes of a run, and counts the bytes sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed

from lozo_bench.errors import UserError


class LostProcessError(UserError):
    """Another process of this run has ended or does not answer."""


class Collectives:
    """Collective calls between all processes of a run, on CPU tensors.

    ``sent`` counts the bytes that this process passed to sums and gathers.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.sent = 0

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of x over all processes.

        Raises:
            LostProcessError: another process has ended.
        """
        total = x.detach().to("cpu", copy=True)
        self._count(total)
        with _report_lost_process():
            distributed.all_reduce(total)
        return total

    def gather(self, x: Tensor) -> list[Tensor]:
        """Return x of every process by rank; all have the same shape.

        Raises:
            LostProcessError: another process has ended.
        """
        x = x.contiguous()
        gathered = [torch.empty_like(x) for _ in range(self.size)]
        self._count(x)
        with _report_lost_process():
            distributed.all_gather(gathered, x)
        return gathered

    def from_first(self, data: bytes) -> bytes:
        """Return the first process's ``data`` in every process; the others' is ignored.

        Raises:
            LostProcessError: another process has ended.
        """
        length = torch.tensor([len(data)])
        with _report_lost_process():
            distributed.broadcast(length, 0)
            content = torch.zeros(int(length), dtype=torch.uint8)
            if self.rank == 0 and data:
                content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            if len(content):
                distributed.broadcast(content, 0)
        return content.numpy().tobytes()

    def _count(self, x: Tensor) -> None:
        self.sent += x.numel() * x.element_size()


@contextmanager
def _report_lost_process() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo and nccl raise it when a peer has ended or is silent
        raise LostProcessError(
            f"another process of this run is gone ({str(error).splitlines()[0]}); the steps so far "
            "are saved: the same command continues the run, also with fewer processes"
        ) from error
