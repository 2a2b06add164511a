"""ZO-SGD with sparse directions: a random mask on z, the same for perturbation and update.

Source: ZO-Bench's sparsity-induced ZO (Zhang et al., arXiv 2402.11592). z ~ N(0, I). m is a mask of
zeros and ones that is drawn again every `resample_every` steps, where an element of the weight
tensor l is 1 with probability 1 - s_l:

    (1)  c = ( L(X + eps m z; B) - L(X - eps m z; B) ) / (2 eps)
    (2)  X <- X - lr c m z

With `group=layer`, s_l is the sparsity s for every tensor. With `group=global`, s_l is the fraction
of l's elements that are among the smallest s of all elements before training, so that layers of
large weights keep more. In both, the mean of s_l over all elements is s. A tensor that starts as
zeros, such as LoRA's B, has s_l = s; its magnitudes would give s_l = 1, and it would never move.

ZO-Bench's released code draws its masks as N(0, 1) < s. With a nominal s of 0.1 it zeroes 54% of
the elements, and with 0.9, 82%. Here the fraction of zeros is s.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lozo_bench.engine.directions import Transformed
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
from lozo_bench.optimizers.estimate import central_difference
from lozo_bench.optimizers.sparsity import global_keep_rates
from lozo_bench.randomness.draws import Draws


class ZoSparse:
    """Zeroth-order SGD along sparse directions.

    Args:
        engine: holds the weights X.
        draws: source of z and m.
        lr: learning rate.
        eps: distance from X at which the two losses are taken.
        sparsity: s.
        group: ``layer`` gives all tensors the same sparsity; ``global`` gives each tensor a
            sparsity that depends on its magnitudes among those of all tensors.
        resample_every: number of steps for which a mask is kept.
    """

    needs = Needs(directions="full_rank")

    def __init__(
        self,
        engine: Engine,
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
        self.engine, self.draws, self.lr, self.eps = engine, draws, lr, eps
        self.resample_every, self.t = resample_every, 0
        keep = dict.fromkeys(engine.X, 1 - sparsity)
        if group == "global":
            keep = global_keep_rates(engine.X, sparsity)
        # The rates are tensors so that they are saved with the optimizer's state: a resumed run
        # continues with the rates of the weights at its start.
        self.keep = {name: torch.tensor(rate, dtype=torch.float64) for name, rate in keep.items()}

    def step(self, score: Score) -> Report:
        """Make one step: two forward passes and one update."""
        t, self.t = self.t, self.t + 1
        mz = self.direction(t)
        loss, c = central_difference(score.full_rank, mz, self.eps)  # (1)
        self.engine.full_rank_move(mz, -self.lr * c)  # (2)
        return Report(loss, forwards=2, scalars={"projected_grad": c})

    def direction(self, t: int) -> Transformed:
        """Return the direction m z of step ``t``."""
        period = t // self.resample_every
        keep = {name: float(rate) for name, rate in self.keep.items()}

        def masked(name: str, start: int, z: Tensor) -> Tensor:
            stop = start + len(z)
            uniform = self.draws.uniform_range("mask", period, name, start, stop, z.device)
            return z * (uniform < keep[name])

        return Transformed(self.draws, t, masked)
