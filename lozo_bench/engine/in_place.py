"""Scoring versions of a model by moving its weights and moving them back.

The plain engine: correct, simple, and the yardstick for faster ones. A direction is a collection of
(parameter name, step) pairs that can be iterated any number of times and gives the same values each
time; a step is a full tensor or a low-rank product that is never formed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LowRank:
    """The matrix U V^T, kept as its factors: U is [m, r], V is [n, r]."""

    U: Tensor
    V: Tensor


Direction = Iterable[tuple[str, LowRank | Tensor]]


class NonFiniteLossError(RuntimeError):
    """A loss that is NaN or infinite. The weights are as they were before the step."""


@torch.no_grad()
def move(X: Mapping[str, Tensor], direction: Direction, by: float) -> None:
    """X <- X + by * direction, in place and without a temporary of a weight's size.

    A tensor of more than two dimensions is moved as the matrix [size(0), everything else].
    """
    for name, step in direction:
        x = X[name]
        if isinstance(step, LowRank):
            x.flatten(1).addmm_(step.U.to(x), step.V.to(x).T, alpha=by)
        else:
            x.add_(step.to(x), alpha=by)


@torch.no_grad()
def decay(X: Mapping[str, Tensor], rate: float) -> None:
    """X <- (1 - rate) X for matrices; biases and norm weights are left alone."""
    if rate:
        for x in X.values():
            if x.ndim >= 2:
                x.mul_(1 - rate)


class InPlaceScore:
    """What an optimizer sees of the model during one step: losses on one batch, nothing else.

    Args:
        X: the weights that move, by name.
        loss: the loss of the model as it stands, on this step's batch: a scalar tensor.
    """

    def __init__(self, X: Mapping[str, Tensor], loss: Callable[[], Tensor]) -> None:
        self.X = X
        self.loss = loss

    def __call__(self, direction: Direction, at: Sequence[float]) -> list[float]:
        """Losses at X + k * direction for each k in ``at``; X is moved back afterwards.

        Raises:
            NonFiniteLossError: one of the losses is NaN or infinite.
        """
        losses, place = [], 0.0
        for k in at:
            move(self.X, direction, k - place)
            place = k
            with torch.inference_mode():
                losses.append(float(self.loss()))
        move(self.X, direction, -place)
        check_finite(losses)
        return losses


def check_finite(losses: Sequence[float]) -> None:
    """Refuse NaN and infinity. A zero is a loss like any other.

    Raises:
        NonFiniteLossError: naming the losses.
    """
    if not all(math.isfinite(loss) for loss in losses):
        raise NonFiniteLossError(f"the losses of this step are {', '.join(map(str, losses))}")
