"""LOZO-M: LOZO with momentum that is kept in the low-rank subspace.

Source: Chen et al., arXiv 2410.07698, algorithm 2. The momentum of a matrix is N V^T, where V is
the current one. Only N in R^{m x r} is stored; N V^T is never formed. With U, V and c as in
`lozo.py`:

    (1)  when V_k changes to V_{k+1}:
             N <- N V_k^T V_{k+1} / n                                (projection="over_n")
         or  N <- N V_k^T V_{k+1} (V_{k+1}^T V_{k+1})^{-1}           (projection="exact")
    (2)  every step:  N <- beta N + (1 - beta) c U
    (3)               X <- X - alpha N V^T / r

The first projection is the paper's. The second is the least-squares projection, which the first
approximates for large n. One-dimensional parameters get an ordinary moving average of c z.

The published code differs in three points:

* Its first step has N = c U, without (1 - beta), for matrices and for vectors. This is reproduced
  with `replicate_first_step=true`.
* It has LOZO's boundary bug, so that a wrong U enters N. This is reproduced with
  `replicate_boundary_bug=true`.
* It has no momentum at all with nu = 1. This is not reproduced.

Because independent V_k and V_{k+1} are nearly orthogonal, the projected N is nearly zero and the
average starts again with each period. `bias_correction=true` divides by 1 - beta^j, where j counts
the updates since V last changed (for one-dimensional parameters: since the start of the run).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from lozo_bench.engine.subspace import Subspace, along
from lozo_bench.errors import bad_value
from lozo_bench.optimizers.base import Engine, Needs, Report, Score, check_fraction
from lozo_bench.optimizers.estimate import central_difference
from lozo_bench.optimizers.low_rank import LowRankDirections, check_options, one_over_r
from lozo_bench.randomness.draws import Draws


class LozoM:
    """Low-rank zeroth-order SGD with momentum.

    Args:
        engine: holds the weights X.
        draws: source of U, V and z.
        lr: learning rate alpha.
        eps: distance from X at which the two losses are taken.
        rank: r.
        nu: number of steps for which V is kept.
        beta: fraction of the momentum that is kept at each step.
        projection: how N is projected onto a new V.
        bias_correction: correct for the moving average's start at zero.
        scale: ``paper`` divides matrix updates by r, ``reference`` does not.
        weight_decay: each step multiplies the matrices by 1 - lr * weight_decay.
        replicate_boundary_bug: reproduce the published code's wrong steps where V is resampled.
        replicate_first_step: reproduce the published code's first momentum, c U.
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
        beta: float = 0.9,
        projection: Literal["over_n", "exact"] = "over_n",
        bias_correction: bool = False,
        scale: Literal["paper", "reference"] = "reference",
        weight_decay: float = 0.0,
        replicate_boundary_bug: bool = False,
        replicate_first_step: bool = False,
    ) -> None:
        check_options(lr, eps, rank, nu, weight_decay)
        check_fraction("beta", beta)
        if replicate_first_step and bias_correction:
            allowed = "false with bias_correction: an average that begins with c U has no bias"
            raise bad_value("replicate_first_step", True, allowed)
        self.engine, self.lr, self.eps, self.weight_decay = engine, lr, eps, weight_decay
        self.nu, self.beta, self.projection = nu, beta, projection
        self.bias_correction, self.replicate_first_step = bias_correction, replicate_first_step
        self.one_over_r = one_over_r(scale, rank)
        self.directions = LowRankDirections(engine.X, draws, rank, nu, replicate_boundary_bug)
        self.N: dict[str, Tensor] = {}  # [m, r] of a matrix, [d, 1] of a vector
        self.V: Mapping[str, Tensor] = {}  # the V to which N belongs
        self.t = self.updates = self.since_V = 0
        self.period = -1

    def step(self, score: Score) -> Report:
        """Make one step: two forward passes and one update."""
        t, self.t = self.t, self.t + 1
        UV = self.directions.draw(t)
        loss, c = central_difference(score, UV, self.eps)

        UV = self.directions.update_direction(t, UV)
        if self.period != t // self.nu:
            for name, V in self.V.items():
                if name in self.N:  # not if the matrix has not been in the function so far
                    self.N[name] = self._project(self.N[name], V, UV.V[name])  # (1)
            self.V, self.period, self.since_V = UV.V, t // self.nu, 0
        weight = 1.0 if self.replicate_first_step and not self.updates else 1 - self.beta
        X = self.engine.X
        for name, u in {**UV.U, **UV.z}.items():
            if name not in X:  # it is off: its momentum stays
                continue
            N = self.N.setdefault(name, torch.zeros_like(u))
            N.mul_(self.beta).add_(u, alpha=weight * c)  # (2)

        self.updates, self.since_V = self.updates + 1, self.since_V + 1

        self.engine.decay(self.lr * self.weight_decay)
        U, z = ({name: self.N[name] for name in side if name in X} for side in (UV.U, UV.z))
        NV = Subspace(U, UV.V, z)
        matrix_scale = self.one_over_r * self._correction(self.since_V)
        vector_scale = self._correction(self.updates)
        self.engine.move(NV, along(NV, -self.lr * matrix_scale, -self.lr * vector_scale))  # (3)
        return Report(loss, forwards=2, scalars={"projected_grad": c})

    def _project(self, N: Tensor, V_old: Tensor, V: Tensor) -> Tensor:
        """Return the N' for which N' V^T is closest (``over_n``: nearly closest) to N V_old^T."""
        overlap = N @ (V_old.T @ V)
        if self.projection == "over_n":
            return overlap / V.shape[0]
        # The pseudo-inverse, because V^T V is singular where the rank exceeds a matrix's side.
        inverse: Tensor = torch.linalg.pinv(V.T @ V, hermitian=True)
        return overlap @ inverse

    def _correction(self, updates: int) -> float:
        return 1 / (1 - self.beta**updates) if self.bias_correction else 1.0
