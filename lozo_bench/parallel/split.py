"""The two ways to split a step's work among processes: by examples or by candidates."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lozo_bench.engine.finite import STOPPED, is_stopped
from lozo_bench.errors import bad_value
from lozo_bench.parallel.collectives import Collectives


class SplitBatch:
    """Every process scores all candidates on its share of the batch; the K loss sums are added."""

    def __init__(self, wire: Collectives) -> None:
        self.wire = wire
        self._shared: DistributedDataParallel | None = None

    def candidates(self, K: int) -> None:
        """Return None: every process scores all candidates."""

    def examples(self, B: int) -> range:
        """Return this process's examples: every size-th, starting at its rank."""
        return _own_share(self.wire, B)

    def rows(self, count: int) -> range:
        """Return this process's rows: every size-th, starting at its rank."""
        return _own_share(self.wire, count)

    def means(self, losses: Tensor, B: int, finite: bool = True) -> Tensor:
        """Return the mean loss of each candidate over the whole batch, with one all-reduce.

        K float32 are sent: the first candidate's loss sum, and the others' differences from it. The
        projected gradient is computed from these differences, which keep all their digits this way.
        If losses may be infinite, K float64 sums are sent instead, because a difference from an
        infinite loss would lose the other one.
        """
        sums = losses.sum(1)
        if not finite:
            return self.wire.sum(sums) / B
        sent = torch.cat([sums[:1], sums[1:] - sums[0]]).float()
        total = self.wire.sum(sent).double()
        total[1:] += total[0]
        return total / B

    def each(self, losses: Tensor, B: int) -> Tensor:
        """Return all examples' losses in the order of the batch, with one all-gather."""
        return _interleaved(self.wire, losses.T, B).T

    def totals(self, totals: Tensor) -> Tensor:
        """Return the sum over the processes, with one all-reduce."""
        return self.wire.sum(totals)

    def differentiable(self, model: nn.Module) -> nn.Module:
        """Return the model wrapped in torch's DistributedDataParallel (DDP)."""
        self._shared = DistributedDataParallel(
            model, find_unused_parameters=True, broadcast_buffers=False
        )
        return self._shared

    def no_sync(self) -> AbstractContextManager[None]:
        """Return DDP's no_sync context; the next backward pass outside adds these gradients up."""
        return nullcontext() if self._shared is None else self._shared.no_sync()

    def gradient_share(self, B: int) -> float:
        """Return ``size / B``, because DDP takes the mean of the processes' gradients."""
        return self.wire.size / B


class SplitCandidates:
    """Every process scores its share of the candidates on the whole batch."""

    def __init__(self, wire: Collectives) -> None:
        self.wire = wire

    def candidates(self, K: int) -> range:
        """Return this process's candidates: every size-th, starting at its rank."""
        return _own_share(self.wire, K)

    def examples(self, B: int) -> range:
        """Return all examples."""
        return range(B)

    def rows(self, count: int) -> range:
        """Return this process's rows: every size-th, starting at its rank."""
        return _own_share(self.wire, count)

    def means(self, losses: Tensor, B: int, finite: bool = True) -> Tensor:
        """Return the mean loss of each candidate, with one all-gather."""
        return self._gathered(losses.sum(1) / B)

    def each(self, losses: Tensor, B: int) -> Tensor:
        """Return all candidates' losses on each example, with one all-gather."""
        return self._gathered(losses)

    def totals(self, totals: Tensor) -> Tensor:
        """Return the sum over the processes, with one all-reduce."""
        return self.wire.sum(totals)

    def differentiable(self, model: nn.Module) -> nn.Module:
        """Not used: a gradient has no candidates to split, so it is refused before a run begins."""
        raise NotImplementedError

    def no_sync(self) -> AbstractContextManager[None]:
        """Not used: see `differentiable`."""
        raise NotImplementedError

    def gradient_share(self, B: int) -> float:
        """Refuse to differentiate. Some optimizers do so only if one of their options is set.

        Raises:
            UserError: always.
        """
        raise bad_value("parallel.split", "candidates", "batch: a gradient has no candidates")

    def _gathered(self, losses: Tensor) -> Tensor:
        K = len(losses)
        own = losses[list(self.candidates(K))]
        if is_stopped(losses):  # a process without any candidate must send this too
            own = torch.full((max(1, len(own)), *losses.shape[1:]), STOPPED).to(losses)
        return _interleaved(self.wire, own, K)


def _own_share(wire: Collectives, count: int) -> range:
    """Return this process's share of ``count`` indices: every size-th, so that shares are alike."""
    return range(wire.rank, count, wire.size)


def _interleaved(wire: Collectives, own: Tensor, count: int) -> Tensor:
    """Gather the rows rank, rank + size, ... of each process and return all rows: [count, ...]."""
    longest = -(-count // wire.size)
    padded = torch.zeros(longest, *own.shape[1:], dtype=own.dtype)
    padded[: len(own)] = own
    pieces = wire.gather(padded)
    if is_stopped(torch.stack(pieces)):
        return torch.full((count, *own.shape[1:]), STOPPED, dtype=own.dtype)
    whole = torch.empty(count, *own.shape[1:], dtype=own.dtype)
    for rank, piece in enumerate(pieces):
        rows = range(rank, count, wire.size)
        whole[list(rows)] = piece[: len(rows)]
    return whole
