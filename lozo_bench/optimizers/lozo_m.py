"""LOZO-M: LOZO with momentum that is kept in the low-rank subspace.

Source: arXiv 2410.07698, algorithm 2. The momentum of a matrix is N in R^{m x r}, read against the
current V: the momentum matrix is N V^T and is never formed. With U, V, c as in `lozo.py`:

    when V_k becomes V_{k+1}:   N <- N V_k^T V_{k+1} / n          (projection="over_n")
                           or   N <- N V_k^T V_{k+1} (V_{k+1}^T V_{k+1})^{-1}      ("exact")
    every step:                 N <- beta N + (1 - beta) c U
                                X <- X - alpha N V^T / r

The first projection is the paper's, the second the least-squares one that it approximates for
large n. One-dimensional parameters get an ordinary moving average of c z. Where the published code
differs: its first step omits (1 - beta), with nu = 1 it has no momentum at all, and it carries
LOZO's boundary bug, so that a wrong U enters N (`replicate_boundary_bug=true` redoes the last).

Because independent V_k and V_{k+1} are nearly orthogonal, the projected N is nearly zero and the
average starts afresh with each period; `bias_correction=true` divides by 1 - beta^j, j being the
updates since V last changed (for one-dimensional parameters: since the start).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.subspace import Subspace, along
from lozo_bench.optimizers.base import (
    Engine,
    Needs,
    Report,
    Score,
    check_fraction,
)
from lozo_bench.optimizers.low_rank import LowRankDirections, check_options, one_over_r


class LozoM:
    """Low-rank zeroth-order SGD with momentum.

    Args:
        X: the weights.
        draws: source of U, V and z.
        lr: learning rate alpha.
        eps: how far the two losses are taken from X.
        rank: r.
        nu: steps for which V is kept.
        beta: share of the momentum that is kept each step.
        projection: how N is carried over to a new V.
        bias_correction: undo the moving average's start at zero.
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
        beta: float = 0.9,
        projection: Literal["over_n", "exact"] = "over_n",
        bias_correction: bool = False,
        scale: Literal["paper", "reference"] = "reference",
        weight_decay: float = 0.0,
        replicate_boundary_bug: bool = False,
    ) -> None:
        check_options(lr, eps, rank, nu, weight_decay)
        check_fraction("beta", beta)
        self.X, self.lr, self.eps, self.weight_decay = X, lr, eps, weight_decay
        self.nu, self.beta, self.projection = nu, beta, projection
        self.bias_correction = bias_correction
        self.one_over_r = one_over_r(scale, rank)
        self.directions = LowRankDirections(X.X, draws, rank, nu, replicate_boundary_bug)
        self.N: dict[str, Tensor] = {}
        self.V: Mapping[str, Tensor] = {}  # what N is read against
        self.t = self.updates = self.since_V = 0
        self.period = -1

    def step(self, score: Score) -> Report:
        """Two forwards and one update."""
        t, self.t = self.t, self.t + 1
        UV = self.directions.draw(t)
        loss_plus, loss_minus = score(UV, (+self.eps, -self.eps))
        c = (loss_plus - loss_minus) / (2 * self.eps)

        UV = self.directions.astray(t, UV)
        if self.period != t // self.nu:
            for name, V in self.V.items():
                self.N[name] = self._project(self.N[name], V, UV.V[name])
            self.V, self.period, self.since_V = UV.V, t // self.nu, 0
        for name, u in {**UV.U, **UV.z}.items():
            N = self.N.setdefault(name, torch.zeros_like(u))
            N.mul_(self.beta).add_(u, alpha=(1 - self.beta) * c)

        self.updates, self.since_V = self.updates + 1, self.since_V + 1

        self.X.decay(self.lr * self.weight_decay)
        NV = Subspace({name: self.N[name] for name in UV.U}, UV.V, {n: self.N[n] for n in UV.z})
        matrix_scale = self.one_over_r * self._correction(self.since_V)
        vector_scale = self._correction(self.updates)
        self.X.move(NV, along(NV, -self.lr * matrix_scale, -self.lr * vector_scale))
        return Report((loss_plus + loss_minus) / 2, forwards=2, scalars={"projected_grad": c})

    def _project(self, N: Tensor, V_old: Tensor, V: Tensor) -> Tensor:
        """The N whose N V^T is (nearly) closest to N_old V_old^T."""
        overlap = N @ (V_old.T @ V)
        if self.projection == "over_n":
            return overlap / V.shape[0]
        # The pseudo-inverse, because V^T V is singular where the rank exceeds a matrix's side.
        inverse: Tensor = torch.linalg.pinv(V.T @ V, hermitian=True)
        return overlap @ inverse

    def _correction(self, steps: int) -> float:
        return 1 / (1 - self.beta**steps) if self.bias_correction else 1.0
