"""What an engine is: it holds the weights of a model and scores candidates of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from lozo_bench.engine.subspace import Coordinates, Subspace
from lozo_bench.engine.terms import Extras

Losses = Callable[[int], Tensor]


Features = Callable[[], tuple[Tensor, Tensor]]


Only = Collection[int] | None


DropoutContext = Callable[[int], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """A batch, or the part of one that goes through the model together.

    ``losses(copies)`` stacks the part ``copies`` times along the first dimension, runs the model on
    it and returns the loss of each example, [copies, size]. ``tokens`` counts the part's tokens,
    padding included; it decides how many candidates share one pass. ``features()`` are what the
    output layer sees before each answer token, [N, d], and the tokens [N]; None where nobody asks.
    """

    size: int
    tokens: int
    losses: Losses
    features: Features | None = None


class FullRank(Protocol):
    """A direction as large as the weights, which only exists while it is applied."""

    def move(self, X: Mapping[str, Tensor], by: float) -> None:
        """X <- X + by * direction, in place."""
        ...


@runtime_checkable
class Engine(Protocol):
    """The weights of a model, where they can be put and what they lose there.

    ``X`` are the tensors by name, ``extras`` further ones that the model's function depends on.
    Between steps an engine may hold part of the weights' value
    elsewhere than in X; `weights` says it whole, `settle` writes it back.
    """

    X: Mapping[str, Tensor]
    extras: Extras

    def losses(
        self,
        P: Subspace,
        places: Coordinates,
        parts: Sequence[MicroBatch],
        only: Only = None,
        rows: Sequence[int] | None = None,
    ) -> Tensor:
        """Loss of each example at each of K places of P, seen from where the weights are.

        ``places`` has leading dimensions [K], or [K, B] for places of each example's own; ``rows``
        says which example each row of the parts is then (None: as they come). Returns [K, rows],
        float64 on the CPU; with ``only`` some of the K are scored and the others are NaN,
        while whatever scoring does to the weights is done for all. Afterwards the weights are where
        they were, or will be before anything else is done with them.
        """
        ...

    def full_rank_losses(
        self, z: FullRank, at: Sequence[float], parts: Sequence[MicroBatch], only: Only = None
    ) -> Tensor:
        """The same for the places c z along a direction of full rank."""
        ...

    def slopes(self, v: FullRank, parts: Sequence[MicroBatch]) -> Tensor:
        """Loss of each example where the weights are, and its derivative along v.

        Returns [2, rows], float64 on the CPU.
        """
        ...

    def returning_if_it_fails(self) -> AbstractContextManager[None]:
        """If an exception leaves this context, the weights go back to where they were."""
        ...

    def move(self, P: Subspace, to: Coordinates) -> None:
        """The weights go to this place."""
        ...

    def full_rank_move(self, z: FullRank, by: float) -> None:
        """The weights go to X + by * z."""
        ...

    def attach(self, P: Subspace, at: Coordinates) -> None:
        """Add U C V^T to the weights in place of what was attached before: an adapter."""
        ...

    def decay(self, rate: float) -> None:
        """Matrices shrink to (1 - rate) of themselves; vectors are left alone."""
        ...

    def weights(self) -> AbstractContextManager[None]:
        """While this is open, calling the model runs it with the weights as they are now."""
        ...

    def settle(self) -> None:
        """Write what has been gathered into X, but for what is attached."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Everything that makes up the weights' value: the tensors themselves, to be read only."""
        ...

    def state(self) -> dict[str, Tensor]:
        """The same, copied to the CPU."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a `state`."""
        ...


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """The rows that a `Score` computes losses of.

    Args:
        parts: this process's examples of the batch, in micro-batches.
        order: which example of this process's share each row of the parts is; None: in order.
        examples: how many examples the whole batch has; None: those in the parts.
        tokens: how many tokens the whole batch has.
    """

    parts: Sequence[MicroBatch] = ()
    order: Sequence[int] | None = None
    examples: int | None = None
    tokens: int = 0
