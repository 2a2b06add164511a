"""ZO-SGD-Sign: every weight moves by lr against the sign of its estimated gradient.

Source: Liu et al., "signSGD via zeroth-order oracle", ICLR 2019, as one of ZO-Bench's methods
(Zhang et al., arXiv 2402.11592). With z ~ N(0, I):

    (1)  c = ( L(X + eps z; B) - L(X - eps z; B) ) / (2 eps)
    (2)  X <- X - lr sign(c z)

If c is 0, nothing moves. ZO-Bench's released code does something else under this name: it
multiplies z by the sign of c, so that weights move by lr |z|, and its sweep files give the result
to AdamW as a gradient.
"""

from __future__ import annotations

import math

from lozo_bench.engine.directions import Transformed
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.optimizers.base import (
    Engine,
    Needs,
    Report,
    Score,
    check_not_negative,
    check_positive,
)
from lozo_bench.optimizers.estimate import central_difference
from lozo_bench.randomness.draws import Draws


class ZoSgdSign:
    """Zeroth-order sign descent.

    Args:
        engine: holds the weights X.
        draws: source of z.
        lr: distance by which every weight moves.
        eps: distance from X at which the two losses are taken.
    """

    needs = Needs(directions="full_rank")

    def __init__(self, engine: Engine, draws: Draws, *, lr: float, eps: float) -> None:
        check_not_negative("lr", lr)
        check_positive("eps", eps)
        self.engine, self.draws, self.lr, self.eps, self.t = engine, draws, lr, eps, 0

    def step(self, score: Score) -> Report:
        """Make one step: two forward passes and one update."""
        t, self.t = self.t, self.t + 1
        z = Gaussian(self.draws, t)
        loss, c = central_difference(score.full_rank, z, self.eps)  # (1)
        if c:
            sign_z = Transformed(self.draws, t, lambda name, start, piece: piece.sign())
            self.engine.full_rank_move(sign_z, -math.copysign(self.lr, c))  # (2)
        return Report(loss, forwards=2, scalars={"projected_grad": c})
