"""Small vectors between the processes of a run, and how many bytes of them were sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed

from lozo_bench.errors import UserError


class LostProcessError(UserError):
    """Another process of this run is gone."""


class Wire:
    """Collective calls of all processes of a run, on CPU tensors.

    ``sent`` counts the bytes this process gave to sums and gathers.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.sent = 0

    def sum(self, x: Tensor) -> Tensor:
        """The sum of everyone's x.

        Raises:
            LostProcessError: another process is gone.
        """
        total = x.detach().to("cpu", copy=True)
        self._count(total)
        with _noticing_losses():
            distributed.all_reduce(total)
        return total

    def gather(self, x: Tensor) -> list[Tensor]:
        """Everyone's x, which have one shape, by rank.

        Raises:
            LostProcessError: another process is gone.
        """
        x = x.contiguous()
        everyones = [torch.empty_like(x) for _ in range(self.size)]
        self._count(x)
        with _noticing_losses():
            distributed.all_gather(everyones, x)
        return everyones

    def from_first(self, data: bytes) -> bytes:
        """What the first process has, everywhere; the others' ``data`` does not matter.

        Raises:
            LostProcessError: another process is gone.
        """
        length = torch.tensor([len(data)])
        with _noticing_losses():
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
def _noticing_losses() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what gloo and nccl raise when a peer is gone or silent
        raise LostProcessError(
            f"another process of this run is gone ({str(error).splitlines()[0]}); the steps so far "
            "are kept: the same command goes on, with as many processes as there are"
        ) from error
