"""ZO-SGD-Cons: of staying, a step and the opposite step, whatever has the lowest loss.

Source: ZO-Bench's conservative ZO-SGD (Zhang et al., arXiv 2402.11592; Bergou et al., "Stochastic
three points method", SIAM J. Optim. 2020). With z ~ N(0, I) and one batch B for all five losses:

    c = ( L(X + eps z; B) - L(X - eps z; B) ) / (2 eps)
    X <- argmin of L(.; B) over X, X - lr c z, X + lr c z        (the first of equals)

In ZO-Bench's released code the trial steps go through AdamW, whose state they change: its way back
does not lead back. Here all five places are on one line through X. There is no weight decay: with
it, staying would not be staying.
"""

from __future__ import annotations

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


class ZoConservative:
    """Zeroth-order SGD that never makes the batch's loss larger.

    Args:
        X: the weights.
        draws: source of z.
        lr: learning rate.
        eps: how far the two losses of the estimate are taken from X.
    """

    needs = Needs(directions="full_rank")

    def __init__(self, X: Engine, draws: Draws, *, lr: float, eps: float) -> None:
        check_not_negative("lr", lr)
        check_positive("eps", eps)
        self.X, self.draws, self.lr, self.eps, self.t = X, draws, lr, eps, 0

    def step(self, score: Score) -> Report:
        """Five forwards, and an update or none."""
        t, self.t = self.t, self.t + 1
        z = Gaussian(self.draws, t)
        loss, loss_plus, loss_minus = score.full_rank(z, (0.0, +self.eps, -self.eps))
        c = (loss_plus - loss_minus) / (2 * self.eps)
        ahead = -self.lr * c
        after = score.full_rank(z, (ahead, -ahead))
        losses = {0.0: loss, ahead: after[0], -ahead: after[1]} if c else {0.0: loss}
        to = min(losses, key=lambda at: losses[at])
        self.X.full_rank_move(z, to)
        direction = 0.0 if not to else 1.0 if to == ahead else -1.0
        scalars = {"projected_grad": c, "direction": direction}
        return Report(loss, forwards=5, scalars=scalars)
