"""MeZO with one forward pass a step: one-point estimates with residual feedback.

Source: Malladi et al., arXiv 2305.17333, appendix B.5 and Table 11, after Zhang et al., "A new
one-point residual-feedback oracle for black-box learning and control", Automatica 2022:

    c_t = ( L(theta_t + eps z_t; B_t) - L(theta_{t-1} + eps z_{t-1}; B_{t-1}) ) / eps
    theta <- theta - lr c_t z_t

The second loss is the one of the step before, which is on another batch and at other weights: the
estimate is that much noisier, and lr must be small beside eps. The first step only finds a loss.
"""

from __future__ import annotations

import math

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


class MezoOnePoint:
    """Full-rank zeroth-order SGD on one loss a step.

    Args:
        X: the weights.
        draws: source of z.
        lr: learning rate.
        eps: how far the loss is taken from X.
        weight_decay: matrices shrink by lr * weight_decay a step.
    """

    needs = Needs(directions="full_rank")

    def __init__(
        self, X: Engine, draws: Draws, *, lr: float, eps: float, weight_decay: float = 0.0
    ) -> None:
        check_not_negative("lr", lr)
        check_positive("eps", eps)
        check_not_negative("weight_decay", weight_decay)
        self.X, self.draws, self.lr, self.eps = X, draws, lr, eps
        self.weight_decay = weight_decay
        self.loss_before = math.nan
        self.t = 0

    def step(self, score: Score) -> Report:
        """One forward and, but for the first step, one update."""
        t, self.t = self.t, self.t + 1
        z = Gaussian(self.draws, t)
        (loss,) = score.full_rank(z, (self.eps,))
        first = math.isnan(self.loss_before)
        c = 0.0 if first else (loss - self.loss_before) / self.eps
        self.loss_before = loss
        self.X.decay(0.0 if first else self.lr * self.weight_decay)
        self.X.full_rank_move(z, -self.lr * c)
        return Report(loss, forwards=1, scalars={"projected_grad": c})
