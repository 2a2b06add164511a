"""How the work of one step's losses is dealt among processes, and put together again.

Every process holds the same weights, makes the same draws and applies the same update; what differs
is which losses it computes. See `lozo_bench.parallel` for several processes.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import Tensor, nn


class Sharing(Protocol):
    """One process's part of the work, and what all of them found."""

    def candidates(self, K: int) -> Collection[int] | None:
        """Which of K candidates this process scores; None: all of them."""
        ...

    def examples(self, B: int) -> range:
        """Which examples of a batch of B this process scores."""
        ...

    def rows(self, count: int) -> range:
        """Which of so many rows this process evaluates."""
        ...

    def means(self, losses: Tensor, B: int, finite: bool = True) -> Tensor:
        """Return mean losses [K] over the whole batch from this process's losses [K, b]; float64.

        If not ``finite``, a loss that is not finite leaves the other candidates' means intact.
        """
        ...

    def each(self, losses: Tensor, B: int) -> Tensor:
        """Losses [K, B] of every example from this process's losses [K, b]; float64."""
        ...

    def totals(self, totals: Tensor) -> Tensor:
        """The sum over processes of a small vector, float64."""
        ...

    def differentiable(self, model: nn.Module) -> nn.Module:
        """What is called in the model's place, so that all processes get one gradient."""
        ...

    def apart(self) -> AbstractContextManager[None]:
        """Forward and backward passes in here leave their gradients with this process for now.

        The next backward pass outside puts all together.
        """
        ...

    def gradient_share(self, B: int) -> float:
        """What the sum of this process's losses counts in what is differentiated, of B examples."""
        ...


class Alone:
    """One process does everything."""

    def candidates(self, K: int) -> None:
        """All."""

    def examples(self, B: int) -> range:
        """All."""
        return range(B)

    def rows(self, count: int) -> range:
        """All."""
        return range(count)

    def means(self, losses: Tensor, B: int, finite: bool = True) -> Tensor:
        """Return the means of this process's losses."""
        return losses.sum(1) / B

    def each(self, losses: Tensor, B: int) -> Tensor:
        """What is here."""
        return losses

    def totals(self, totals: Tensor) -> Tensor:
        """What is here."""
        return totals

    def differentiable(self, model: nn.Module) -> nn.Module:
        """The model."""
        return model

    def apart(self) -> AbstractContextManager[None]:
        """Nothing to put together."""
        return nullcontext()

    def gradient_share(self, B: int) -> float:
        """One B-th."""
        return 1 / B


ALONE = Alone()
