"""The two-point estimate of a slope, on which most zeroth-order methods are built."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Direction = TypeVar("Direction")
LossesAlong = Callable[[Direction, tuple[float, float]], list[float]]


def central_difference(
    losses_along: LossesAlong[Direction], direction: Direction, eps: float
) -> tuple[float, float]:
    """Return the mean of the losses at X + eps P and X - eps P, and their slope c along P.

        c = ( L(X + eps P) - L(X - eps P) ) / (2 eps)

    c is also called the projected gradient: it estimates the product of the gradient with P.

    Args:
        losses_along: returns the loss at X + a P for each given distance a: ``score`` for low-rank
            directions, ``score.full_rank`` for full-rank ones.
        direction: P.
        eps: distance from X, the same on both sides.

    Raises:
        NonFiniteLossError: one of the losses is NaN or infinite.
    """
    loss_plus, loss_minus = losses_along(direction, (+eps, -eps))
    return (loss_plus + loss_minus) / 2, (loss_plus - loss_minus) / (2 * eps)
