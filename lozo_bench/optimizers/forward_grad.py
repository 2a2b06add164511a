"""Forward-Grad: descent along random directions, with exact slopes from forward-mode AD.

Source: Baydin et al., "Gradients without Backpropagation", arXiv 2202.08587, as one of ZO-Bench's
methods (arXiv 2402.11592). With v ~ N(0, I):

    (1)  slope = grad L(X; B) . v
    (2)  X <- X - lr slope v

The slope is the derivative itself, not a difference of losses, so there is no eps. One pass through
the model computes the value and the derivative of every activation. During that pass v is stored
beside the weights. The pass takes about as long as two forward passes, but counts as one. The
objective must have a derivative.
"""

from __future__ import annotations

from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.optimizers.base import Engine, Needs, Report, Score, check_not_negative
from lozo_bench.randomness.draws import Draws


class ForwardGrad:
    """SGD along forward gradients.

    Args:
        engine: holds the weights X.
        draws: source of v.
        lr: learning rate.
        weight_decay: each step multiplies the matrices by 1 - lr * weight_decay.
    """

    needs = Needs(directions="full_rank", gradient=True)

    def __init__(
        self, engine: Engine, draws: Draws, *, lr: float, weight_decay: float = 0.0
    ) -> None:
        check_not_negative("lr", lr)
        check_not_negative("weight_decay", weight_decay)
        self.engine, self.draws, self.lr, self.weight_decay = engine, draws, lr, weight_decay
        self.t = 0

    def step(self, score: Score) -> Report:
        """Make one step: one forward pass and one update."""
        t, self.t = self.t, self.t + 1
        v = Gaussian(self.draws, t, "v")
        loss, slope = score.slope(v)  # (1)
        self.engine.decay(self.lr * self.weight_decay)
        self.engine.full_rank_move(v, -self.lr * slope)  # (2)
        return Report(loss, forwards=1, scalars={"slope": slope})
