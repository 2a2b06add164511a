"""ZO-SGD with sparse directions: a random mask on z, the same for perturbation and update.

Source: ZO-Bench's sparsity-induced ZO (Zhang et al., arXiv 2402.11592). With z ~ N(0, I), and m in
{0, 1} drawn anew every so many steps, where an element of weight l is 1 with probability 1 - s_l:

    c = ( L(X + eps m z; B) - L(X - eps m z; B) ) / (2 eps)
    X <- X - lr c m z

s_l is the sparsity s for every weight (`group=layer`), or the share of l's elements among the
smallest s of all elements before training (`group=global`): layers of large weights keep more. The
mean of s_l over all elements is s in both. A weight that begins as zeros, such as LoRA's B, has
s_l = s: by its magnitudes it would never move.

ZO-Bench's released code draws its masks as N(0, 1) < s: with a nominal s of 0.1, 54% are zeroed, of
0.9, 82%. Here it is s.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lozo_bench.engine.directions import Changed
from lozo_bench.engine.draws import Draws
from lozo_bench.optimizers.base import (
    Engine,
    Needs,
    Report,
    Score,
    check_count,
    check_fraction,
    check_not_negative,
    check_positive,
)
from lozo_bench.optimizers.sparsity import global_keep_rates


class ZoSparse:
    """Zeroth-order SGD along sparse directions.

    Args:
        X: the weights.
        draws: source of z and m.
        lr: learning rate.
        eps: how far the two losses are taken from X.
        sparsity: s.
        group: whether each weight is as sparse as the others, or by its magnitudes among all.
        resample_every: steps for which a mask is kept.
    """

    needs = Needs(directions="full_rank")

    def __init__(
        self,
        X: Engine,
        draws: Draws,
        *,
        lr: float,
        eps: float,
        sparsity: float,
        group: Literal["layer", "global"] = "global",
        resample_every: int = 1,
    ) -> None:
        check_not_negative("lr", lr)
        check_positive("eps", eps)
        check_fraction("sparsity", sparsity)
        check_count("resample_every", resample_every)
        self.X, self.draws, self.lr, self.eps = X, draws, lr, eps
        self.resample_every, self.t = resample_every, 0
        keep = dict.fromkeys(X.X, 1 - sparsity)
        if group == "global":
            keep = global_keep_rates(X.X, sparsity)
        # Tensors, so that they are kept with the optimizer's state: a run goes on with the rates of
        # the weights that it began with.
        self.keep = {name: torch.tensor(rate, dtype=torch.float64) for name, rate in keep.items()}

    def step(self, score: Score) -> Report:
        """Two forwards and one update."""
        t, self.t = self.t, self.t + 1
        z = self.direction(t)
        loss_plus, loss_minus = score.full_rank(z, (+self.eps, -self.eps))
        c = (loss_plus - loss_minus) / (2 * self.eps)
        self.X.full_rank_move(z, -self.lr * c)
        return Report((loss_plus + loss_minus) / 2, forwards=2, scalars={"projected_grad": c})

    def direction(self, t: int) -> Changed:
        """The direction m z of step ``t``."""
        period = t // self.resample_every
        keep = {name: float(rate) for name, rate in self.keep.items()}

        def masked(name: str, start: int, z: Tensor) -> Tensor:
            stop = start + len(z)
            chance = self.draws.uniform_range("mask", period, name, start, stop, z.device)
            return z * (chance < keep[name])

        return Changed(self.draws, t, masked)
