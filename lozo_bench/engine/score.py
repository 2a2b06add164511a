"""What an optimizer sees of the model during one step: losses on one batch, nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lozo_bench.engine.subspace import Places, Subspace, along, stacked
from lozo_bench.errors import UserError

Losses = Callable[[int], Tensor]


class NonFiniteLossError(RuntimeError):
    """A loss that is NaN or infinite. The weights are as they were before the step."""


@dataclass(frozen=True, slots=True)
class Part:
    """A batch, or the part of one that goes through the model together.

    ``losses(copies)`` stacks the part ``copies`` times along the first dimension, runs the model on
    it and returns the loss of each example, [copies, size]. ``tokens`` counts the part's tokens,
    padding included; it decides how many candidates share one pass.
    """

    size: int
    tokens: int
    losses: Losses


class FullRank(Protocol):
    """A direction as large as the weights, which only exists while it is applied."""

    def move(self, X: Mapping[str, Tensor], by: float) -> None:
        """X <- X + by * direction, in place."""
        ...


class Engine(Protocol):
    """The weights of a model, where they can be put and what they lose there.

    ``X`` are the tensors by name. Between steps an engine may hold part of the weights' value
    elsewhere than in X; `weights` says it whole, `settle` writes it back.
    """

    X: Mapping[str, Tensor]

    def losses(self, P: Subspace, places: Places, parts: Sequence[Part]) -> Tensor:
        """Loss of each example at each of K places of P, seen from where the weights are.

        ``places`` has leading dimensions [K], or [K, B] for places of each example's own. Returns
        [K, B], float64 on the CPU. Afterwards the weights are where they were.
        """
        ...

    def full_rank_losses(self, z: FullRank, at: Sequence[float], parts: Sequence[Part]) -> Tensor:
        """The same for the places c z along a direction of full rank."""
        ...

    def move(self, P: Subspace, to: Places) -> None:
        """The weights go to this place."""
        ...

    def full_rank_move(self, z: FullRank, by: float) -> None:
        """The weights go to X + by * z."""
        ...

    def attach(self, P: Subspace, at: Places) -> None:
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

    def state(self) -> dict[str, Tensor]:
        """Everything that makes up the weights' value, copied to the CPU."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a `state`."""
        ...


class Score:
    """The model's loss on the batch of one step.

    Args:
        engine: holds the weights.
        parts: the batch; the loss of the batch is the mean over all its examples.
    """

    def __init__(self, engine: Engine, parts: Sequence[Part]) -> None:
        self.engine, self.parts = engine, parts
        self.examples = sum(part.size for part in parts)

    def __call__(self, P: Subspace, at: Sequence[float] | Places) -> list[float]:
        """Losses at places of P: at c U V^T, c z for numbers c, or at each of [K] places.

        Raises:
            NonFiniteLossError: one of the losses is NaN or infinite.
        """
        places = at if isinstance(at, Places) else stacked([along(P, c) for c in at])
        losses: list[float] = self.engine.losses(P, places, self.parts).mean(1).tolist()
        return losses

    def of_each_example(self, P: Subspace, places: Places) -> Tensor:
        """Losses [K, B], float64 on the CPU, at [K, B] places: one for each example.

        Raises:
            NonFiniteLossError: one of the losses is NaN or infinite.
        """
        return self.engine.losses(P, places, self.parts)

    def full_rank(self, z: FullRank, at: Sequence[float]) -> list[float]:
        """Losses at c z for each c.

        Raises:
            NonFiniteLossError: one of the losses is NaN or infinite.
        """
        losses: list[float] = self.engine.full_rank_losses(z, at, self.parts).mean(1).tolist()
        return losses

    def loss(self) -> Tensor:
        """The differentiable loss of the weights in X: a scalar."""
        total = torch.stack([part.losses(1).sum() for part in self.parts]).sum()
        return total / self.examples


def whole(part: Part, copies: int) -> Tensor:
    """Losses [copies, size] of a part, float64 on the CPU.

    Raises:
        ValueError: the part's closure gives something else.
    """
    losses = part.losses(copies)
    if losses.shape != (copies, part.size):
        raise ValueError(
            f"losses({copies}) of a part of {part.size} examples must be of shape "
            f"[{copies}, {part.size}], one loss for each example of each copy, and is of shape "
            f"{list(losses.shape)}"
        )
    return losses.to("cpu", torch.float64)


def check_weights(X: Mapping[str, Tensor]) -> None:
    """Refuse weights that cannot be seen as matrices where they are.

    Raises:
        UserError: a tensor of more than two dimensions is not contiguous.
    """
    for name, x in X.items():
        if x.ndim > 2 and not x.is_contiguous():
            raise UserError(
                f"the weight {name!r} has {x.ndim} dimensions and is not contiguous; "
                "model.to(memory_format=torch.contiguous_format) makes it so"
            )


def checked(losses: Tensor) -> Tensor:
    """Losses [K, B] as they are, unless a candidate's mean is NaN or infinite.

    A zero is a loss like any other.

    Raises:
        NonFiniteLossError: naming the K mean losses.
    """
    means = losses.mean(1).tolist()
    if not all(math.isfinite(loss) for loss in means):
        raise NonFiniteLossError(f"the losses of this step are {', '.join(map(str, means))}")
    return losses
