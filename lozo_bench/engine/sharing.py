"""How processes divide the losses of a step among themselves and combine them.

Every process holds the same weights, draws the same directions and applies the same update. They
differ only in the losses that they compute. `lozo_bench.parallel` implements it for several.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import Tensor, nn


class Sharing(Protocol):
    """The share of one process, and how the results of all are combined."""

    def candidates(self, K: int) -> Collection[int] | None:
        """Return the candidates, out of K, that this process scores; None: all of them."""
        ...

    def examples(self, B: int) -> range:
        """Return the examples, out of a batch of B, that this process scores."""
        ...

    def rows(self, count: int) -> range:
        """Return the rows, out of ``count``, that this process evaluates."""
        ...

    def means(self, losses: Tensor, B: int, finite: bool = True) -> Tensor:
        """Return mean losses [K] over the whole batch from this process's losses [K, b]; float64.

        If not ``finite``, a loss that is not finite leaves the other candidates' means intact.
        """
        ...

    def each(self, losses: Tensor, B: int) -> Tensor:
        """Return losses [K, B] of every example from this process's losses [K, b]; float64."""
        ...

    def totals(self, totals: Tensor) -> Tensor:
        """Return the sum of a small vector over the processes, float64."""
        ...

    def differentiable(self, model: nn.Module) -> nn.Module:
        """Return what to call instead of the model, so that all processes get one gradient."""
        ...

    def no_sync(self) -> AbstractContextManager[None]:
        """Return a context whose backward passes do not synchronize gradients between processes.

        The next backward pass outside it adds up the gradients of all processes.
        """
        ...

    def gradient_share(self, B: int) -> float:
        """Return the factor from this process's loss sum to the gradient of the batch mean of B."""
        ...


class Alone:
    """The only process."""

    def candidates(self, K: int) -> None:
        """Return None: it scores all candidates."""

    def examples(self, B: int) -> range:
        """Return all examples."""
        return range(B)

    def rows(self, count: int) -> range:
        """Return all rows."""
        return range(count)

    def means(self, losses: Tensor, B: int, finite: bool = True) -> Tensor:
        """Return the means of this process's losses."""
        return losses.sum(1) / B

    def each(self, losses: Tensor, B: int) -> Tensor:
        """Return them unchanged."""
        return losses

    def totals(self, totals: Tensor) -> Tensor:
        """Return them unchanged."""
        return totals

    def differentiable(self, model: nn.Module) -> nn.Module:
        """Return the model."""
        return model

    def no_sync(self) -> AbstractContextManager[None]:
        """Return a context without effect."""
        return nullcontext()

    def gradient_share(self, B: int) -> float:
        """Return 1 / B."""
        return 1 / B


ALONE = Alone()
