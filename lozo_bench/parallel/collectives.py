"""Exchanges small vectors between the processes of a run, and counts the bytes sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import torch
from torch import Tensor, distributed

from lozo_bench.errors import Stopped, UserError
from lozo_bench.parallel.connect import LOOK_EVERY_S, hang_up

# A process that is asked to stop during an exchange waits this long for the others. Usually they
# come, and all stop in the same step.
_GRACE_S = 2.0


class LostProcessError(UserError):
    """Another process of this run has ended or does not answer."""


class Collectives:
    """Collective calls between all processes of a run, on CPU tensors.

    ``sent`` counts the bytes that this process passed to sums and gathers.

    Args:
        rank: of this process.
        size: the number of processes.
        check: called while waiting for the others; raises Stopped if this process was asked to
            stop.
    """

    def __init__(self, rank: int, size: int, check: Callable[[], None] = lambda: None) -> None:
        self.rank, self.size, self._check = rank, size, check
        self.sent = 0

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of x over all processes.

        Raises:
            LostProcessError: another process has ended.
        """
        total = x.detach().to("cpu", copy=True)
        self._count(total)
        self._finish(lambda: distributed.all_reduce(total, async_op=True))
        return total

    def gather(self, x: Tensor) -> list[Tensor]:
        """Return x of every process by rank; all have the same shape.

        Raises:
            LostProcessError: another process has ended.
        """
        self._count(x)
        return self._gathered(x)

    def from_first(self, data: bytes) -> bytes:
        """Return the first process's ``data`` in every process; the others' is ignored.

        Raises:
            LostProcessError: another process has ended.
        """
        length = torch.tensor([len(data)])
        self._finish(lambda: distributed.broadcast(length, 0, async_op=True))
        content = _padded(data if self.rank == 0 else b"", int(length))
        if len(content):
            self._finish(lambda: distributed.broadcast(content, 0, async_op=True))
        return content.numpy().tobytes()

    def of_all(self, data: bytes) -> list[bytes]:
        """Return the ``data`` of every process by rank; their lengths may differ.

        Raises:
            LostProcessError: another process has ended.
        """
        lengths = [int(length) for length in self._gathered(torch.tensor([len(data)]))]
        pieces = self._gathered(_padded(data, max(lengths)))
        return [
            piece[:length].numpy().tobytes() for piece, length in zip(pieces, lengths, strict=True)
        ]

    def _gathered(self, x: Tensor) -> list[Tensor]:
        x = x.contiguous()
        gathered = [torch.empty_like(x) for _ in range(self.size)]
        self._finish(lambda: distributed.all_gather(gathered, x, async_op=True))
        return gathered

    def _finish(self, begin: Callable[[], distributed.Work | None]) -> None:
        """Begin an exchange and wait for its end.

        Raises:
            LostProcessError: another process has ended, or does not answer although this one was
                asked to stop.
        """
        try:
            work = begin()
            assert work is not None, "this process is one of those that exchange"
            self._wait(work)
        except RuntimeError as error:  # gloo raises it when a peer has ended or is silent
            raise LostProcessError(
                f"another process of this run is gone ({str(error).splitlines()[0]}); the steps so "
                "far are saved: the same command continues the run, also with fewer processes"
            ) from error

    def _wait(self, work: distributed.Work) -> None:
        until = None
        try:
            while not _is_finished(work):
                try:
                    self._check()
                except Stopped as asked:
                    until = until or time.monotonic() + _GRACE_S
                    if time.monotonic() > until:
                        raise LostProcessError(
                            f"stopped by {asked} while it waited for the other processes of this "
                            "run; the steps so far are saved, and the same command continues"
                        ) from asked
        except BaseException:
            hang_up()  # otherwise the exchange, and with it this process, would go on waiting
            raise

    def _count(self, x: Tensor) -> None:
        self.sent += x.numel() * x.element_size()


def _padded(data: bytes, length: int) -> Tensor:
    """Return the data as uint8 numbers, followed by zeros up to this length."""
    padded = bytearray(data.ljust(length, b"\0"))
    # frombuffer refuses a buffer without bytes.
    return torch.frombuffer(padded, dtype=torch.uint8) if padded else torch.zeros(0).byte()


def _is_finished(work: distributed.Work) -> bool:
    """Wait for an exchange for a short time and return whether it is finished.

    Raises:
        RuntimeError: it failed.
    """
    try:
        work.wait(timedelta(seconds=LOOK_EVERY_S))
    except RuntimeError:
        if not work.is_completed():
            return False  # the short time is over
        work.wait()  # raises the failure, unless it finished just now
    return True
