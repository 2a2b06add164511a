"""LOZO with a direction for every example: B directions at the price of two forwards.

Source: Tan et al., "GRZO: Group-Relative Zeroth-Order Optimization for Large Language Model
Fine-Tuning", arXiv 2606.02857, on LOZO's factors. Each example b of the batch meets its own pair of
candidates in the same two passes:

    c_b  = ( F(X + eps U_b V^T; xi_b) - F(X - eps U_b V^T; xi_b) ) / (2 eps)      b = 1 .. B
    X_l <- X_l - alpha (1/B) sum_b a_b U_bl V_l^T / r

with a_b = c_b (`weights=plain`: the average of B independent estimates, unbiased), or the paper's
group-relative a_b = delta_b / (s + 1e-8), delta_b = 2 eps c_b and s their standard deviation over
the batch, divided by 2 eps (`weights=group`): the step no longer depends on the scale of the loss.
A batch of a single example has no spread, and counts as `plain`.

GRZO makes its B directions of one by Flipout's random signs (Wen et al., arXiv 1803.04386), since
full-rank ones could not be held; thin ones can, and are drawn independently.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.subspace import among
from lozo_bench.optimizers.base import (
    Engine,
    Needs,
    Report,
    Score,
)
from lozo_bench.optimizers.low_rank import LowRankDirections, check_options, one_over_r

_SMALL = 1e-8  # the paper's stability constant


class LozoPerExample:
    """Low-rank zeroth-order SGD along one direction per example.

    Args:
        X: the weights.
        draws: source of U_b, V and z_b.
        lr: learning rate alpha.
        eps: how far the losses are taken from X.
        rank: r.
        nu: steps for which V is kept.
        weights: ``plain`` weighs a direction by its slope c_b, ``group`` by its slope relative to
            the batch's.
        scale: ``paper`` divides matrix updates by r, ``reference`` does not.
        weight_decay: matrices shrink by lr * weight_decay a step.
    """

    needs = Needs(directions="low_rank")

    def __init__(
        self,
        X: Engine,
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
        self.X, self.lr, self.eps, self.weight_decay = X, lr, eps, weight_decay
        self.weights = weights
        self.one_over_r = one_over_r(scale, rank)
        self.directions = LowRankDirections(X.X, draws, rank, nu)
        self.t = 0

    def step(self, score: Score) -> Report:
        """Two forwards and one update."""
        t, self.t = self.t, self.t + 1
        B = score.examples
        UV = self.directions.draw(t, count=B)
        own = self.eps * torch.eye(B, dtype=torch.float64)  # example b is moved along U_b only
        losses = score.of_each_example(UV, among(UV, torch.stack([own, -own])))
        c = (losses[0] - losses[1]) / (2 * self.eps)
        self.X.decay(self.lr * self.weight_decay)
        step = -self.lr * self._relative(c) / B
        self.X.move(UV, among(UV, step * self.one_over_r, vectors=step))
        return Report(float(losses.mean()), forwards=2, scalars={"projected_grad": float(c.mean())})

    def _relative(self, c: Tensor) -> Tensor:
        if self.weights == "plain" or len(c) == 1:  # one example is no group
            return c
        delta = 2 * self.eps * c
        return delta / (delta.std(correction=0) + _SMALL) / (2 * self.eps)
