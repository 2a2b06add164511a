"""LOZO: zeroth-order SGD along low-rank directions.

Source: Chen et al., "Enhancing Zeroth-Order Fine-Tuning for Language Models with Low-Rank
Structures", arXiv 2410.07698, algorithm 1. With X_l in R^{m x n} a weight matrix, at step t:

    U_l ~ N(0,1)^{m x r},   V_l ~ N(0,1)^{n x r} when t mod nu == 0, else kept
    c   = ( F(X + eps U V^T; xi) - F(X - eps U V^T; xi) ) / (2 eps)           (the LGE scalar)
    X_l <- X_l - alpha c U_l V_l^T / r

Where the published code differs, and what is done about it:

* It omits the 1/r: `scale=reference` (the default, so that published learning rates mean what they
  meant) does too, `scale=paper` does not. One-dimensional parameters move by lr c z in both; only
  for them do the two conventions with lr_paper = r lr_reference differ.
* On every step where V is resampled it updates along a direction other than the one it measured.
  Not here, unless `replicate_boundary_bug=true` (see `low_rank.py`).
"""

from __future__ import annotations

from typing import Literal

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.subspace import along
from lozo_bench.optimizers.base import (
    Engine,
    Needs,
    Report,
    Score,
)
from lozo_bench.optimizers.low_rank import LowRankDirections, check_options, one_over_r


class Lozo:
    """Low-rank zeroth-order SGD.

    Args:
        X: the weights.
        draws: source of U, V and z.
        lr: learning rate alpha.
        eps: how far the two losses are taken from X.
        rank: r.
        nu: steps for which V is kept.
        scale: ``paper`` divides matrix updates by r, ``reference`` does not.
        weight_decay: matrices shrink by lr * weight_decay a step.
        replicate_boundary_bug: go astray on boundary steps as the published code does.
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
        scale: Literal["paper", "reference"] = "reference",
        weight_decay: float = 0.0,
        replicate_boundary_bug: bool = False,
    ) -> None:
        check_options(lr, eps, rank, nu, weight_decay)
        self.X, self.lr, self.eps, self.weight_decay = X, lr, eps, weight_decay
        self.one_over_r = one_over_r(scale, rank)
        self.directions = LowRankDirections(X.X, draws, rank, nu, replicate_boundary_bug)
        self.t = 0

    def step(self, score: Score) -> Report:
        """Two forwards and one update."""
        t, self.t = self.t, self.t + 1
        UV = self.directions.draw(t)
        loss_plus, loss_minus = score(UV, (+self.eps, -self.eps))
        c = (loss_plus - loss_minus) / (2 * self.eps)
        self.X.decay(self.lr * self.weight_decay)
        UV = self.directions.astray(t, UV)
        self.X.move(UV, along(UV, matrices=-self.lr * c * self.one_over_r, vectors=-self.lr * c))
        return Report((loss_plus + loss_minus) / 2, forwards=2, scalars={"projected_grad": c})
