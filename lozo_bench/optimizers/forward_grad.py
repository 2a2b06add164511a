"""Forward-Grad: descent along random directions whose exact slopes forward-mode AD finds.

Source: Baydin et al., "Gradients without Backpropagation", arXiv 2202.08587, as one of ZO-Bench's
methods (arXiv 2402.11592). With v ~ N(0, I):

    X <- X - lr (grad L(X; B) . v) v

The slope is the derivative itself, not a difference of losses: there is no eps. One pass through
the model carries value and derivative of everything: v is kept beside the weights for that time,
and it takes about as long as two forward passes, but counts as one. The objective needs a
derivative.
"""

from __future__ import annotations

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.optimizers.base import Engine, Needs, Report, Score, check_not_negative


class ForwardGrad:
    """SGD along forward gradients.

    Args:
        X: the weights.
        draws: source of v.
        lr: learning rate.
        weight_decay: matrices shrink by lr * weight_decay a step.
    """

    needs = Needs(directions="full_rank", gradient=True)

    def __init__(self, X: Engine, draws: Draws, *, lr: float, weight_decay: float = 0.0) -> None:
        check_not_negative("lr", lr)
        check_not_negative("weight_decay", weight_decay)
        self.X, self.draws, self.lr, self.weight_decay, self.t = X, draws, lr, weight_decay, 0

    def step(self, score: Score) -> Report:
        """One forward pass and one update."""
        t, self.t = self.t, self.t + 1
        v = Gaussian(self.draws, t, "v")
        loss, slope = score.slope(v)
        self.X.decay(self.lr * self.weight_decay)
        self.X.full_rank_move(v, -self.lr * slope)
        return Report(loss, forwards=1, scalars={"slope": slope})
