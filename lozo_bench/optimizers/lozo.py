"""LOZO: zeroth-order SGD along low-rank directions.

Source: Chen et al., "Enhancing Zeroth-Order Fine-Tuning for Language Models with Low-Rank
Structures", arXiv 2410.07698, algorithm 1. At step t, for each weight matrix X_l in R^{m x n}:

    (1)  U_l ~ N(0,1)^{m x r};   V_l ~ N(0,1)^{n x r} if t mod nu == 0, else V_l is kept
    (2)  c = ( F(X + eps U V^T; xi) - F(X - eps U V^T; xi) ) / (2 eps)
    (3)  X_l <- X_l - alpha c U_l V_l^T / r

One-dimensional parameters have a standard normal z in place of U V^T and move by alpha c z.

The published code (github.com/optsuite/LOZO) differs in two points:

* It omits the 1/r of (3). So does `scale=reference`, the default, so that published learning rates
  keep their meaning; `scale=paper` divides by r. One-dimensional parameters move by lr c z under
  both: with lr_paper = r lr_reference the two scales differ only in these parameters.
* On every step that resamples V, it updates along another direction than the one it measured. This
  is reproduced only with `replicate_boundary_bug=true` (see `low_rank.py`).
"""

from __future__ import annotations

from typing import Literal

from lozo_bench.engine.subspace import along
from lozo_bench.optimizers.base import Engine, Needs, Report, Score
from lozo_bench.optimizers.estimate import central_difference
from lozo_bench.optimizers.low_rank import LowRankDirections, check_options, one_over_r
from lozo_bench.randomness.draws import Draws


class Lozo:
    """Low-rank zeroth-order SGD.

    Args:
        engine: holds the weights X.
        draws: source of U, V and z.
        lr: learning rate alpha.
        eps: distance from X at which the two losses are taken.
        rank: r.
        nu: number of steps for which V is kept.
        scale: ``paper`` divides matrix updates by r, ``reference`` does not.
        weight_decay: each step multiplies the matrices by 1 - lr * weight_decay.
        replicate_boundary_bug: reproduce the published code's wrong steps where V is resampled.
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
        scale: Literal["paper", "reference"] = "reference",
        weight_decay: float = 0.0,
        replicate_boundary_bug: bool = False,
    ) -> None:
        check_options(lr, eps, rank, nu, weight_decay)
        self.engine, self.lr, self.eps, self.weight_decay = engine, lr, eps, weight_decay
        self.one_over_r = one_over_r(scale, rank)
        self.directions = LowRankDirections(engine.X, draws, rank, nu, replicate_boundary_bug)
        self.t = 0

    def step(self, score: Score) -> Report:
        """Make one step: two forward passes and one update."""
        t, self.t = self.t, self.t + 1
        UV = self.directions.draw(t)  # (1)
        loss, c = central_difference(score, UV, self.eps)  # (2)
        self.engine.decay(self.lr * self.weight_decay)
        UV = self.directions.update_direction(t, UV)
        step = -self.lr * c
        self.engine.move(UV, along(UV, matrices=step * self.one_over_r, vectors=step))  # (3)
        return Report(loss, forwards=2, scalars={"projected_grad": c})
