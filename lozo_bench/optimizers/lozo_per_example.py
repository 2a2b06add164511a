"""LOZO with one direction for each example: B directions at the cost of two forward passes.

Source: Tan et al., "GRZO: Group-Relative Zeroth-Order Optimization for Large Language Model
Fine-Tuning", arXiv 2606.02857, with LOZO's low-rank factors. In the same two passes, each example
xi_b of the batch is scored at its own pair of candidates:

    (1)  c_b = ( F(X + eps U_b V^T; xi_b) - F(X - eps U_b V^T; xi_b) ) / (2 eps),   b = 1 .. B
    (2)  a_b = c_b                                                      (weights="plain")
         a_b = delta_b / (s + 1e-8) / (2 eps),   delta_b = 2 eps c_b    (weights="group")
    (3)  X_l <- X_l - alpha (1/B) sum_b a_b U_bl V_l^T / r

`plain` is the unbiased average of B independent estimates. `group` is the paper's group-relative
weight, where s is the standard deviation of delta_b over the batch: the step no longer depends on
the scale of the loss. A batch of a single example has no spread; it is treated as `plain`.

GRZO derives its B directions from one by Flipout's random signs (Wen et al., arXiv 1803.04386),
because B full-rank directions do not fit in memory. Low-rank directions do; here they are drawn
independently.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lozo_bench.engine.subspace import combination
from lozo_bench.optimizers.base import Engine, Needs, Report, Score
from lozo_bench.optimizers.low_rank import LowRankDirections, check_options, one_over_r
from lozo_bench.randomness.draws import Draws

_STABILITY = 1e-8  # the paper's constant, added to the standard deviation


class LozoPerExample:
    """Low-rank zeroth-order SGD along one direction per example.

    Args:
        engine: holds the weights X.
        draws: source of U_b, V and z_b.
        lr: learning rate alpha.
        eps: distance from X at which the losses are taken.
        rank: r.
        nu: number of steps for which V is kept.
        weights: what multiplies a direction: ``plain``, its slope c_b; ``group``, its slope
            relative to the spread of slopes in the batch.
        scale: ``paper`` divides matrix updates by r, ``reference`` does not.
        weight_decay: each step multiplies the matrices by 1 - lr * weight_decay.
    """

    needs = Needs(directions="low_rank")

    def __init__(
        self,
        engine: Engine,
        draws: Draws,
        *,
        lr: float,
        eps: float,
        rank: int,
        nu: int,
        weights: Literal["plain", "group"] = "plain",
        scale: Literal["paper", "reference"] = "reference",
        weight_decay: float = 0.0,
    ) -> None:
        check_options(lr, eps, rank, nu, weight_decay)
        self.engine, self.lr, self.eps, self.weight_decay = engine, lr, eps, weight_decay
        self.weights = weights
        self.one_over_r = one_over_r(scale, rank)
        self.directions = LowRankDirections(engine.X, draws, rank, nu)
        self.t = 0

    def step(self, score: Score) -> Report:
        """Make one step: two forward passes and one update."""
        t, self.t = self.t, self.t + 1
        B = score.examples
        UV = self.directions.draw(t, count=B)
        plus_eps = self.eps * torch.eye(B, dtype=torch.float64)  # row b: only U_b, for example b
        losses = score.of_each_example(UV, combination(UV, torch.stack([plus_eps, -plus_eps])))
        c = (losses[0] - losses[1]) / (2 * self.eps)  # (1)
        self.engine.decay(self.lr * self.weight_decay)
        step = -self.lr * self._weights(c) / B
        self.engine.move(UV, combination(UV, step * self.one_over_r, vectors=step))  # (3)
        return Report(float(losses.mean()), forwards=2, scalars={"projected_grad": float(c.mean())})

    def _weights(self, c: Tensor) -> Tensor:
        """Return a [B] of equation (2)."""
        if self.weights == "plain" or len(c) == 1:
            return c
        delta = 2 * self.eps * c
        return delta / (delta.std(correction=0) + _STABILITY) / (2 * self.eps)
