"""ZO-SGD-Cons: takes the step, the opposite step or no step, whichever has the lowest loss.

Source: ZO-Bench's conservative ZO-SGD (Zhang et al., arXiv 2402.11592; Bergou et al., "Stochastic
three points method", SIAM J. Optim. 2020). With z ~ N(0, I) and one batch B for all five losses:

    (1)  c = ( L(X + eps z; B) - L(X - eps z; B) ) / (2 eps)
    (2)  X <- argmin of L(.; B) over X, X - lr c z, X + lr c z      (the first of these if they tie)

ZO-Bench's released code makes its trial steps with AdamW. They change AdamW's state, so that
stepping back does not restore the weights. Here all five losses are taken on one line through X.
There is no weight decay, because it would move the weights even when no step is taken.
"""

from __future__ import annotations

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


class ZoConservative:
    """Zeroth-order SGD that never makes the batch's loss larger.

    Args:
        engine: holds the weights X.
        draws: source of z.
        lr: learning rate.
        eps: distance from X at which the two losses of the estimate are taken.
    """

    needs = Needs(directions="full_rank")

    def __init__(self, engine: Engine, draws: Draws, *, lr: float, eps: float) -> None:
        check_not_negative("lr", lr)
        check_positive("eps", eps)
        self.engine, self.draws, self.lr, self.eps, self.t = engine, draws, lr, eps, 0

    def step(self, score: Score) -> Report:
        """Make one step: five forward passes, and an update or none."""
        t, self.t = self.t, self.t + 1
        z = Gaussian(self.draws, t)
        loss, loss_plus, loss_minus = score.full_rank(z, (0.0, +self.eps, -self.eps))
        c = (loss_plus - loss_minus) / (2 * self.eps)  # (1)
        step = -self.lr * c
        loss_step, loss_opposite = score.full_rank(z, (step, -step))
        losses = {0.0: loss, step: loss_step, -step: loss_opposite} if c else {0.0: loss}
        best = min(losses, key=lambda distance: losses[distance])
        self.engine.full_rank_move(z, best)  # (2)
        direction = 0.0 if not best else 1.0 if best == step else -1.0
        scalars = {"projected_grad": c, "direction": direction}
        return Report(loss, forwards=5, scalars=scalars)
