"""The interface of an engine, which holds a model's weights and scores candidates near them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from lozo_bench.engine.snapshot import Snapshot
from lozo_bench.engine.stored import Kept
from lozo_bench.engine.subspace import Coordinates, Subspace
from lozo_bench.engine.terms import Extras

# copies -> losses [copies, size] of a micro-batch
Losses = Callable[[int], Tensor]
Features = Callable[[], tuple[Tensor, Tensor]]
# The numbers of the candidates to score; None: all of them.
Only = Collection[int] | None
# number of a micro-batch -> the context in which it is differentiated
DropoutContext = Callable[[int], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the losses of a micro-batch are computed from, beside the weights.

    Args:
        tensors: by name.
        losses: ``losses(tensors, copies)`` computes the losses from other tensors of these names.
        kind: inputs of equal kinds and shapes are computed with in the same way.
    """

    tensors: Mapping[str, Tensor]
    losses: Callable[[Mapping[str, Tensor], int], Tensor]
    kind: Hashable

    def at(self, tensors: Mapping[str, Tensor]) -> Inputs:
        """Return the same with other tensors."""
        return replace(self, tensors=tensors)

    def copies(self, copies: int) -> Tensor:
        """Return the losses [copies, size] that are computed from the tensors."""
        return self.losses(self.tensors, copies)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Examples that go through the model together.

    Args:
        size: how many examples there are.
        tokens: how many tokens they have, padding included; it decides how many candidates share a
            forward pass.
        losses: ``losses(copies)`` stacks the examples ``copies`` times along the first dimension,
            runs the model on them and returns the loss of each example, [copies, size].
        features: returns the output layer's input before each answer token, [N, d], and these
            tokens, [N]; None if the method does not need them.
        key: names its rows: equal keys mean the same rows in the same order; None: they have no
            name, and nothing that was computed from them is used for a later micro-batch.
        inputs: what ``losses`` computes from, if that depends on nothing but tensors; else None.
    """

    size: int
    tokens: int
    losses: Losses
    features: Features | None = None
    key: Hashable | None = None
    inputs: Inputs | None = None


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


class FullRank(Protocol):
    """A direction as large as the weights, which exists only while it is applied."""

    def move(self, X: Mapping[str, Tensor], by: float) -> None:
        """Add ``by`` times the direction to X, in place."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Holds a model's weights, scores candidates near them, and updates them.

    ``X`` are the weights by name, ``extras`` further tensors that the model's function depends on.
    Between steps an engine may hold a part of the weights' value outside X: `applied` runs the
    model with the full value, and `flush` writes the full value to X.
    """

    X: Mapping[str, Tensor]
    extras: Extras

    @property
    def model(self) -> nn.Module | None:
        """The model that has the weights; None for a function that is no model."""
        ...

    def losses(
        self,
        P: Subspace,
        coordinates: Coordinates,
        parts: Sequence[MicroBatch],
        only: Only = None,
        rows: Sequence[int] | None = None,
    ) -> Tensor:
        """Return the loss of each example at each of K candidates: the weights plus a point of P.

        Afterwards the weights are what they were, at the latest before their next use.

        Args:
            P: the subspace.
            coordinates: the candidates' coordinates in P. Their leading dimensions are [K], or
                [K, B] if each example has candidates of its own.
            parts: the batch, in micro-batches.
            only: the candidates to score. The losses of the others are NaN. Whatever scoring does
                to the weights is done for all candidates, so that all processes round alike.
            rows: which example each row of the parts is; None: in order.

        Returns:
            Losses [K, rows], float64 on the CPU.
        """
        ...

    def full_rank_losses(
        self, z: FullRank, at: Sequence[float], parts: Sequence[MicroBatch], only: Only = None
    ) -> Tensor:
        """Return the losses [K, rows] of the candidates X + c z, for each number c of ``at``."""
        ...

    def slopes(self, v: FullRank, parts: Sequence[MicroBatch]) -> Tensor:
        """Return each example's loss at the weights, and its derivative along v.

        Returns:
            [2, rows], float64 on the CPU.
        """
        ...

    def restored_on_failure(self) -> AbstractContextManager[None]:
        """Return a context that restores the weights if an exception leaves it."""
        ...

    def move(self, P: Subspace, to: Coordinates) -> None:
        """Update the weights: add the point of P with these coordinates."""
        ...

    def full_rank_move(self, z: FullRank, by: float) -> None:
        """Update the weights: add ``by`` times z."""
        ...

    def set_adapter(self, P: Subspace, at: Coordinates) -> None:
        """Add an adapter U C V^T to the weights, in place of the adapter set before."""
        ...

    def decay(self, rate: float) -> None:
        """Multiply matrices by 1 - rate; vectors do not decay."""
        ...

    def applied(self) -> AbstractContextManager[None]:
        """Return a context in which calling the model uses the weights' full value."""
        ...

    def flush(self) -> None:
        """Write the weights' full value to X, except the adapter."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors that make up the weights' value; they must not be changed."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return copies of `tensors` on the CPU."""
        ...

    def snapshot(self, scratch: Path | None = None, spare: Snapshot | None = None) -> Snapshot:
        """Return the tensors of now, of which those are copied that may change.

        Args:
            scratch: a folder for the copies of weights; None: they are in memory.
            spare: a snapshot that is not needed any more.
        """
        ...

    def load_state(self, state: Mapping[str, Kept]) -> None:
        """Restore what `state` returned."""
        ...
