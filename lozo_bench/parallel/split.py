"""The two ways to deal a step's work: by examples, or by candidates."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lozo_bench.engine.score import STOPPED, is_stopped
from lozo_bench.errors import bad_value
from lozo_bench.parallel.wire import Wire


class SplitBatch:
    """Every process scores all candidates on its share of the batch; the K sums are added up."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._shared: DistributedDataParallel | None = None

    def candidates(self, K: int) -> None:
        """All."""

    def examples(self, B: int) -> range:
        """Every size-th."""
        return _mine(self.wire, B)

    def rows(self, count: int) -> range:
        """Every size-th."""
        return _mine(self.wire, count)

    def means(self, losses: Tensor, B: int, finite: bool = True) -> Tensor:
        """Add up K float32: the first candidate's losses, and the others' differences from it.

        Slopes are computed from the differences, which keep all their digits in this way. If
        losses may be infinite, K float64 sums are added up instead: a difference from an infinite
        loss would lose the other one.
        """
        sums = losses.sum(1)
        if not finite:
            return self.wire.sum(sums) / B
        sent = torch.cat([sums[:1], sums[1:] - sums[0]]).float()
        total = self.wire.sum(sent).double()
        total[1:] += total[0]
        return total / B

    def each(self, losses: Tensor, B: int) -> Tensor:
        """Everyone's columns, in the batch's order."""
        return _interleaved(self.wire, losses.T, B).T

    def totals(self, totals: Tensor) -> Tensor:
        """One sum."""
        return self.wire.sum(totals)

    def differentiable(self, model: nn.Module) -> nn.Module:
        """In torch's DDP."""
        self._shared = DistributedDataParallel(
            model, find_unused_parameters=True, broadcast_buffers=False
        )
        return self._shared

    def apart(self) -> AbstractContextManager[None]:
        """DDP adds them to those of the next backward pass."""
        return nullcontext() if self._shared is None else self._shared.no_sync()

    def gradient_share(self, B: int) -> float:
        """``size / B``: DDP takes the mean of the processes' gradients."""
        return self.wire.size / B


class SplitCandidates:
    """Every process scores its share of the candidates on the whole batch."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    def candidates(self, K: int) -> range:
        """Every size-th."""
        return _mine(self.wire, K)

    def examples(self, B: int) -> range:
        """All."""
        return range(B)

    def rows(self, count: int) -> range:
        """Every size-th."""
        return _mine(self.wire, count)

    def means(self, losses: Tensor, B: int, finite: bool = True) -> Tensor:
        """Everyone's candidates' means, in order."""
        return self._together(losses.sum(1) / B)

    def each(self, losses: Tensor, B: int) -> Tensor:
        """Everyone's candidates' losses, in order."""
        return self._together(losses)

    def totals(self, totals: Tensor) -> Tensor:
        """One sum."""
        return self.wire.sum(totals)

    def differentiable(self, model: nn.Module) -> nn.Module:
        """There are no candidates to split: refused before a run begins."""
        raise NotImplementedError

    def apart(self) -> AbstractContextManager[None]:
        """Neither here."""
        raise NotImplementedError

    def gradient_share(self, B: int) -> float:
        """Refused: some optimizers differentiate only where an option of theirs says so.

        Raises:
            UserError: always.
        """
        raise bad_value("parallel.split", "candidates", "batch: a gradient has no candidates")

    def _together(self, losses: Tensor) -> Tensor:
        K = len(losses)
        mine = losses[list(self.candidates(K))]
        if is_stopped(losses):  # also from a process without a candidate of its own
            mine = torch.full((max(1, len(mine)), *losses.shape[1:]), STOPPED).to(losses)
        return _interleaved(self.wire, mine, K)


def _mine(wire: Wire, count: int) -> range:
    """This process's of so many things: every size-th, so that shares are alike."""
    return range(wire.rank, count, wire.size)


def _interleaved(wire: Wire, mine: Tensor, count: int) -> Tensor:
    """Rows rank, rank + size, ... of each process put together: [count, ...]."""
    longest = -(-count // wire.size)
    padded = torch.zeros(longest, *mine.shape[1:], dtype=mine.dtype)
    padded[: len(mine)] = mine
    pieces = wire.gather(padded)
    if is_stopped(torch.stack(pieces)):
        return torch.full((count, *mine.shape[1:]), STOPPED, dtype=mine.dtype)
    whole = torch.empty(count, *mine.shape[1:], dtype=mine.dtype)
    for rank, piece in enumerate(pieces):
        rows = range(rank, count, wire.size)
        whole[list(rows)] = piece[: len(rows)]
    return whole
