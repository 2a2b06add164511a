"""MeZO with one forward pass per step: one-point estimates with residual feedback.

Source: Malladi et al., arXiv 2305.17333, appendix B.5 and Table 11, after Zhang et al., "A new
one-point residual-feedback oracle for black-box learning and control", Automatica 2022. With
z_t ~ N(0, I):

    (1)  c_t = ( L(X_t + eps z_t; B_t) - L(X_{t-1} + eps z_{t-1}; B_{t-1}) ) / eps
    (2)  X_{t+1} = X_t - lr c_t z_t

The second loss in (1) is the one of the previous step, on another batch and at other weights. This
makes the estimate noisier, and lr must be small compared with eps. The first step takes a loss but
makes no update.
"""

from __future__ import annotations

import math

from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.optimizers.base import (
    Engine,
    Needs,
    Report,
    Score,
    check_not_negative,
    check_positive,
)
from lozo_bench.randomness.draws import Draws


class MezoOnePoint:
    """Full-rank zeroth-order SGD with one loss per step.

    Args:
        engine: holds the weights X.
        draws: source of z.
        lr: learning rate.
        eps: distance from X at which the loss is taken.
        weight_decay: each step multiplies the matrices by 1 - lr * weight_decay.
    """

    needs = Needs(directions="full_rank")

    def __init__(
        self, engine: Engine, draws: Draws, *, lr: float, eps: float, weight_decay: float = 0.0
    ) -> None:
        check_not_negative("lr", lr)
        check_positive("eps", eps)
        check_not_negative("weight_decay", weight_decay)
        self.engine, self.draws, self.lr, self.eps = engine, draws, lr, eps
        self.weight_decay = weight_decay
        self.loss_before = math.nan
        self.t = 0

    def step(self, score: Score) -> Report:
        """Make one step: one forward pass and, except at the first step, one update."""
        t, self.t = self.t, self.t + 1
        z = Gaussian(self.draws, t)
        (loss,) = score.full_rank(z, (self.eps,))
        first = math.isnan(self.loss_before)
        c = 0.0 if first else (loss - self.loss_before) / self.eps  # (1)
        self.loss_before = loss
        self.engine.decay(0.0 if first else self.lr * self.weight_decay)
        self.engine.full_rank_move(z, -self.lr * c)  # (2)
        return Report(loss, forwards=1, scalars={"projected_grad": c})
