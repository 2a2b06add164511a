"""MeZO with momentum: a buffer beside the weights accumulates c z.

Source: heavy-ball SGD on the estimate of arXiv 2305.17333, as in ZO-Bench (Zhang et al.,
"Revisiting Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning", arXiv 2402.11592:
ZO-SGD-MMT). With z ~ N(0, I):

    (1)  c = ( L(X + eps z; B) - L(X - eps z; B) ) / (2 eps)
    (2)  M <- beta M + c z
    (3)  X <- X - lr M

As in torch's SGD by default, there is no dampening and no Nesterov momentum: a constant gradient
moves the weights 1 / (1 - beta) times as fast as without momentum. M is float32 for half-precision
weights; in ZO-Bench it has the type of the weights. MeZO's README mentions a momentum option, but
its code has none.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lozo_bench.engine.directions import Given
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.engine.shown import every
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
from lozo_bench.optimizers.estimate import central_difference
from lozo_bench.randomness.draws import Draws


class MezoMomentum:
    """Full-rank zeroth-order SGD with momentum.

    Args:
        engine: holds the weights X.
        draws: source of z.
        lr: learning rate.
        eps: distance from X at which the two losses are taken.
        beta: fraction of M that is kept at each step.
        weight_decay: each step multiplies the matrices by 1 - lr * weight_decay; M does not
            accumulate the decay.
    """

    needs = Needs(directions="full_rank")

    def __init__(
        self,
        engine: Engine,
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
        self.engine, self.draws, self.lr, self.eps = engine, draws, lr, eps
        self.beta, self.weight_decay = beta, weight_decay
        self.M: dict[str, Tensor] = {}
        self.t = 0

    def step(self, score: Score) -> Report:
        """Make one step: two forward passes and one update."""
        t, self.t = self.t, self.t + 1
        z = Gaussian(self.draws, t)
        loss, c = central_difference(score.full_rank, z, self.eps)  # (1)
        if not self.M:
            self.M = zeros_like_weights(self.engine)
        M = {name: self.M[name] for name in self.engine.X}  # without those that are off
        for each in M.values():
            each.mul_(self.beta)
        z.move(M, c)  # (2)
        self.engine.decay(self.lr * self.weight_decay)
        self.engine.full_rank_move(Given(self._piece), -self.lr)  # (3)
        return Report(loss, forwards=2, scalars={"projected_grad": c})

    def _piece(self, name: str, start: int, stop: int) -> Tensor:
        return self.M[name].view(-1)[start:stop]


def zeros_like_weights(engine: Engine) -> dict[str, Tensor]:
    """Return zeros shaped like all weights: float64 for float64 weights, else float32."""
    return {
        name: torch.zeros(x.shape, dtype=wide(x.dtype), device=x.device)
        for name, x in every(engine.X).items()
    }
