"""LOZO with q directions a step: the same bytes of weights read, 1/q of the variance.

The estimate of `lozo.py` averaged over q independent U_i of one step, all along the V of the period
(the q of n-SPSA; Spall 1992, MeZO appendix A):

    c_i  = ( F(X + eps U_i V^T; xi) - F(X - eps U_i V^T; xi) ) / (2 eps)      i = 1 .. q
    X_l <- X_l - alpha (1/q) sum_i c_i U_il V_l^T / r

The 2q candidates only differ in thin factors, so that they share passes through the model where
there is room, and the update is a single one, of rank r. With q = 1 it is LOZO, bit for bit.
"""

from __future__ import annotations

from statistics import fmean
from typing import Literal

import torch

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.subspace import among
from lozo_bench.optimizers.base import (
    Engine,
    Needs,
    Report,
    Score,
    check_count,
)
from lozo_bench.optimizers.low_rank import LowRankDirections, check_options, one_over_r


class LozoQ:
    """Low-rank zeroth-order SGD along the average of q directions.

    Args:
        X: the weights.
        draws: source of U_i, V and z_i.
        lr: learning rate alpha.
        eps: how far the losses are taken from X.
        rank: r.
        nu: steps for which V is kept.
        q: directions a step; a step costs 2q forwards.
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
        q: int,
        scale: Literal["paper", "reference"] = "reference",
        weight_decay: float = 0.0,
    ) -> None:
        check_options(lr, eps, rank, nu, weight_decay)
        check_count("q", q)
        self.X, self.lr, self.eps, self.q, self.weight_decay = X, lr, eps, q, weight_decay
        self.one_over_r = one_over_r(scale, rank)
        self.directions = LowRankDirections(X.X, draws, rank, nu)
        self.t = 0

    def step(self, score: Score) -> Report:
        """2q forwards and one update."""
        t, self.t = self.t, self.t + 1
        UV = self.directions.draw(t, count=self.q)
        one_each = self.eps * torch.eye(self.q, dtype=torch.float64)
        losses = score(UV, among(UV, torch.cat([one_each, -one_each])))
        c = [
            (plus - minus) / (2 * self.eps)
            for plus, minus in zip(losses[: self.q], losses[self.q :], strict=True)
        ]
        self.X.decay(self.lr * self.weight_decay)
        step = [-self.lr * c_i / self.q for c_i in c]
        self.X.move(UV, among(UV, [s * self.one_over_r for s in step], vectors=step))
        return Report(fmean(losses), forwards=2 * self.q, scalars={"projected_grad": fmean(c)})
