"""MeZO: zeroth-order SGD along full Gaussian directions that are never stored.

Source: Malladi et al., "Fine-Tuning Language Models with Just Forward Passes", arXiv 2305.17333,
algorithm 1. At step t, with z ~ N(0, I) drawn again whenever it is needed:

    c = ( L(theta + eps z; B) - L(theta - eps z; B) ) / (2 eps)
    theta <- theta - lr c z

The weights are moved in place, in three passes: to theta + eps z, to theta - eps z, and from there
to the end of the step, the way back and the update being one. On a GPU a pass draws z while it adds
it, and nothing but the weights is ever in memory.
"""

from __future__ import annotations

from typing import ClassVar

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.optimizers.base import (
    Engine,
    Report,
    Score,
    Steps,
    check_not_negative,
    check_positive,
)


class Mezo:
    """Full-rank zeroth-order SGD.

    Args:
        theta: the weights.
        draws: source of z.
        lr: learning rate.
        eps: how far the two losses are taken from X.
        weight_decay: matrices shrink by lr * weight_decay a step.
    """

    steps: ClassVar[Steps] = Steps.full_rank

    def __init__(
        self, theta: Engine, draws: Draws, *, lr: float, eps: float, weight_decay: float = 0.0
    ) -> None:
        check_not_negative("lr", lr)
        check_positive("eps", eps)
        check_not_negative("weight_decay", weight_decay)
        self.theta, self.draws = theta, draws
        self.lr, self.eps, self.weight_decay = lr, eps, weight_decay
        self.t = 0

    def step(self, score: Score) -> Report:
        """Two forwards and one update."""
        t, self.t = self.t, self.t + 1
        z = Gaussian(self.draws, t)
        loss_plus, loss_minus = score.full_rank(z, (+self.eps, -self.eps))
        c = (loss_plus - loss_minus) / (2 * self.eps)
        self.theta.decay(self.lr * self.weight_decay)
        self.theta.full_rank_move(z, -self.lr * c)
        return Report((loss_plus + loss_minus) / 2, forwards=2, scalars={"projected_grad": c})
