"""MeZO with momentum: c z goes into a buffer beside the weights.

Source: heavy-ball SGD on the estimate of arXiv 2305.17333, as in ZO-Bench (Zhang et al.,
"Revisiting Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning", arXiv 2402.11592:
ZO-SGD-MMT):

    c = ( L(theta + eps z; B) - L(theta - eps z; B) ) / (2 eps)
    M <- beta M + c z
    theta <- theta - lr M

There is no dampening and no Nesterov, as in torch's SGD by default: a steady gradient moves the
weights 1 / (1 - beta) times as fast as without momentum. M is float32 beside half-precision
weights, where ZO-Bench keeps it in their type. MeZO's README names such an option, which its code
does not have.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lozo_bench.engine.directions import Dense
from lozo_bench.engine.draws import Draws
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.engine.tensors import wide
from lozo_bench.optimizers.base import (
    Engine,
    Needs,
    Report,
    Score,
    check_fraction,
    check_not_negative,
    check_positive,
)


class MezoMomentum:
    """Full-rank zeroth-order SGD with momentum.

    Args:
        X: the weights.
        draws: source of z.
        lr: learning rate.
        eps: how far the two losses are taken from X.
        beta: share of M that is kept each step.
        weight_decay: matrices shrink by lr * weight_decay a step; it does not go through M.
    """

    needs = Needs(directions="full_rank")

    def __init__(
        self,
        X: Engine,
        draws: Draws,
        *,
        lr: float,
        eps: float,
        beta: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        check_not_negative("lr", lr)
        check_positive("eps", eps)
        check_fraction("beta", beta)
        check_not_negative("weight_decay", weight_decay)
        self.X, self.draws, self.lr, self.eps = X, draws, lr, eps
        self.beta, self.weight_decay = beta, weight_decay
        self.M: dict[str, Tensor] = {}
        self.t = 0

    def step(self, score: Score) -> Report:
        """Two forwards and one update."""
        t, self.t = self.t, self.t + 1
        z = Gaussian(self.draws, t)
        loss_plus, loss_minus = score.full_rank(z, (+self.eps, -self.eps))
        c = (loss_plus - loss_minus) / (2 * self.eps)
        if not self.M:
            self.M = beside(self.X)
        for M in self.M.values():
            M.mul_(self.beta)
        z.move(self.M, c)
        self.X.decay(self.lr * self.weight_decay)
        self.X.full_rank_move(Dense(self._piece), -self.lr)
        return Report((loss_plus + loss_minus) / 2, forwards=2, scalars={"projected_grad": c})

    def _piece(self, name: str, start: int, stop: int) -> Tensor:
        return self.M[name].view(-1)[start:stop]


def beside(X: Engine) -> dict[str, Tensor]:
    """Zeros like the weights, float32 or, for float64 weights, float64."""
    return {
        name: torch.zeros(x.shape, dtype=wide(x.dtype), device=x.device) for name, x in X.X.items()
    }
