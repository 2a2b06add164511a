"""LOZO with q directions per step: the average of q estimates, with 1/q of the variance.

The estimate of `lozo.py` is averaged over q independent U_i in one step, all with the V of the
period (q is the number of samples of n-SPSA: Spall 1992, and MeZO, arXiv 2305.17333, appendix A):

    (1)  c_i = ( F(X + eps U_i V^T; xi) - F(X - eps U_i V^T; xi) ) / (2 eps),   i = 1 .. q
    (2)  X_l <- X_l - alpha (1/q) sum_i c_i U_il V_l^T / r

The 2q candidates differ only in low-rank factors. Where memory allows it, they share passes through
the model, which then reads its weights no more often than for LOZO. There is a single update, of
rank r. With q = 1 this is LOZO, bit for bit.
"""

from __future__ import annotations

from statistics import fmean
from typing import Literal

import torch

from lozo_bench.engine.subspace import combination
from lozo_bench.optimizers.base import Engine, Needs, Report, Score, check_count
from lozo_bench.optimizers.low_rank import LowRankDirections, check_options, one_over_r
from lozo_bench.randomness.draws import Draws


class LozoQ:
    """Low-rank zeroth-order SGD along the average of q directions.

    Args:
        engine: holds the weights X.
        draws: source of U_i, V and z_i.
        lr: learning rate alpha.
        eps: distance from X at which the losses are taken.
        rank: r.
        nu: number of steps for which V is kept.
        q: number of directions in a step, which costs 2q forward passes.
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
        q: int,
        scale: Literal["paper", "reference"] = "reference",
        weight_decay: float = 0.0,
    ) -> None:
        check_options(lr, eps, rank, nu, weight_decay)
        check_count("q", q)
        self.engine, self.lr, self.eps, self.q = engine, lr, eps, q
        self.weight_decay = weight_decay
        self.one_over_r = one_over_r(scale, rank)
        self.directions = LowRankDirections(engine.X, draws, rank, nu)
        self.t = 0

    def step(self, score: Score) -> Report:
        """Make one step: 2q forward passes and one update."""
        t, self.t = self.t, self.t + 1
        UV = self.directions.draw(t, count=self.q)
        plus_eps = self.eps * torch.eye(self.q, dtype=torch.float64)  # row i: only U_i
        losses = score(UV, combination(UV, torch.cat([plus_eps, -plus_eps])))
        c = [  # (1)
            (loss_plus - loss_minus) / (2 * self.eps)
            for loss_plus, loss_minus in zip(losses[: self.q], losses[self.q :], strict=True)
        ]
        self.engine.decay(self.lr * self.weight_decay)
        step = [-self.lr * c_i / self.q for c_i in c]
        self.engine.move(
            UV, combination(UV, [s * self.one_over_r for s in step], vectors=step)
        )  # (2)
        return Report(fmean(losses), forwards=2 * self.q, scalars={"projected_grad": fmean(c)})
