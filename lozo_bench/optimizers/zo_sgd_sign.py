"""ZO-SGD-Sign: every weight moves by lr, against the sign of its estimated gradient.

Source: Liu et al., "signSGD via zeroth-order oracle", ICLR 2019, as one of ZO-Bench's methods
(Zhang et al., arXiv 2402.11592). With z ~ N(0, I):

    c = ( L(X + eps z; B) - L(X - eps z; B) ) / (2 eps)
    X <- X - lr sign(c z)

ZO-Bench's released code does something else under this name: it multiplies z by the sign of c, so
that weights move by lr |z|, and its sweep files hand that to AdamW. A c of 0 moves nothing.
"""

from __future__ import annotations

import math

from lozo_bench.engine.directions import Changed
from lozo_bench.engine.draws import Draws
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.optimizers.base import (
    Engine,
    Needs,
    Report,
    Score,
    check_not_negative,
    check_positive,
)


class ZoSgdSign:
    """Zeroth-order sign descent.

    Args:
        X: the weights.
        draws: source of z.
        lr: how far every weight moves.
        eps: how far the two losses are taken from X.
    """

    needs = Needs(directions="full_rank")

    def __init__(self, X: Engine, draws: Draws, *, lr: float, eps: float) -> None:
        check_not_negative("lr", lr)
        check_positive("eps", eps)
        self.X, self.draws, self.lr, self.eps, self.t = X, draws, lr, eps, 0

    def step(self, score: Score) -> Report:
        """Two forwards and one update."""
        t, self.t = self.t, self.t + 1
        z = Gaussian(self.draws, t)
        loss_plus, loss_minus = score.full_rank(z, (+self.eps, -self.eps))
        c = (loss_plus - loss_minus) / (2 * self.eps)
        if c:
            signs = Changed(self.draws, t, lambda name, start, piece: piece.sign())
            self.X.full_rank_move(signs, -math.copysign(self.lr, c))
        return Report((loss_plus + loss_minus) / 2, forwards=2, scalars={"projected_grad": c})
