"""MeZO-Adam: MeZO's estimate c z in the place of Adam's gradient.

Source: Malladi et al., arXiv 2305.17333, appendix B.2 and Table 7; ZO-Adam of ZO-Bench (arXiv
2402.11592) is the same with its own grid. With g = c z, element by element:

    m <- beta1 m + (1 - beta1) g,     v <- beta2 v + (1 - beta2) g^2
    theta <- theta - lr m / (1 - beta1^k) / ( sqrt(v / (1 - beta2^k)) + adam_eps )

k counts updates. Weight decay is AdamW's, beside the moments (arXiv 1711.05101), and on matrices
only. MeZO's paper has a version that makes the moments again from all scalars so far and stores
none; its code stores them, and so does this. They are float32 beside half-precision weights: of
ZO-Bench's runs some kept them in float16, where 1e-8 is 0, and its weight decay was never used.
"""

from __future__ import annotations

from torch import Tensor

from lozo_bench.engine.directions import Dense
from lozo_bench.engine.draws import Draws
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.optimizers.base import (
    Engine,
    Needs,
    Report,
    Score,
    check_fraction,
    check_not_negative,
    check_positive,
)
from lozo_bench.optimizers.mezo_momentum import beside


class MezoAdam:
    """Adam along full-rank zeroth-order estimates.

    Args:
        X: the weights.
        draws: source of z.
        lr: learning rate.
        eps: how far the two losses are taken from X.
        beta1: share of the first moment that is kept each step.
        beta2: share of the second moment that is kept each step.
        adam_eps: added to the root of the second moment.
        weight_decay: matrices shrink by lr * weight_decay a step.
    """

    needs = Needs(directions="full_rank")

    def __init__(
        self,
        X: Engine,
        draws: Draws,
        *,
        lr: float,
        eps: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        adam_eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        check_not_negative("lr", lr)
        check_positive("eps", eps)
        check_fraction("beta1", beta1)
        check_fraction("beta2", beta2)
        check_positive("adam_eps", adam_eps)
        check_not_negative("weight_decay", weight_decay)
        self.X, self.draws, self.lr, self.eps = X, draws, lr, eps
        self.beta1, self.beta2, self.adam_eps = beta1, beta2, adam_eps
        self.weight_decay = weight_decay
        self.m: dict[str, Tensor] = {}
        self.v: dict[str, Tensor] = {}
        self.t = self.updates = 0

    def step(self, score: Score) -> Report:
        """Two forwards and one update."""
        t, self.t = self.t, self.t + 1
        z = Gaussian(self.draws, t)
        loss_plus, loss_minus = score.full_rank(z, (+self.eps, -self.eps))
        c = (loss_plus - loss_minus) / (2 * self.eps)
        self._gather(z, c)
        self.X.decay(self.lr * self.weight_decay)
        self.X.full_rank_move(Dense(self._piece), -self.lr)
        return Report((loss_plus + loss_minus) / 2, forwards=2, scalars={"projected_grad": c})

    def _gather(self, z: Gaussian, c: float) -> None:
        if not self.updates:
            self.m, self.v = beside(self.X), beside(self.X)
        self.updates += 1
        for name, start, piece in z.pieces(self.X.X):
            g = piece * c
            here = slice(start, start + len(g))
            self.m[name].view(-1)[here].mul_(self.beta1).add_(g, alpha=1 - self.beta1)
            self.v[name].view(-1)[here].mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)

    def _piece(self, name: str, start: int, stop: int) -> Tensor:
        m, v = (moment[name].view(-1)[start:stop] for moment in (self.m, self.v))
        root = (v / (1 - self.beta2**self.updates)).sqrt_()
        return m / (1 - self.beta1**self.updates) / root.add_(self.adam_eps)
