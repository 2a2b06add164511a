"""EGGROLL: an evolution strategy whose population differs in low-rank matrices.

Source: Sarkar et al., "Evolution Strategies at the Hyperscale", arXiv 2511.16652. At step t, member
i of a population of N has E_i = U_i V_i^T / sqrt(r) with both factors standard normal and its own,
and its mirror image -E_i is a member too (antithetic sampling, N/2 pairs):

    f_i  = -F(X + sigma E_i; xi)
    X_l <- X_l + alpha 1/(N sigma) sum_i s_i E_il

s_i being the fitness f_i itself (`fitness=raw`: the estimate of the gradient of the smoothed loss)
or its z-score in the population (`fitness=zscore`, which the published code uses). The update has
rank N r / 2, much more than any member. One-dimensional parameters have plain normal e_i.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.subspace import Subspace, among
from lozo_bench.engine.tensors import wide
from lozo_bench.errors import bad_value
from lozo_bench.optimizers.base import (
    Engine,
    Needs,
    Report,
    Score,
    check_count,
    check_not_negative,
    check_positive,
)

_SMALL = 1e-8  # a population of equals has no spread to divide by


class Eggroll:
    """Antithetic low-rank evolution strategy.

    Args:
        X: the weights.
        draws: source of U_i, V_i and e_i.
        lr: learning rate alpha.
        sigma: how far the members are from X.
        rank: r.
        population: N, an even number; a step costs N forwards.
        fitness: what a member's loss counts for.
        weight_decay: matrices shrink by lr * weight_decay a step.
    """

    needs = Needs(directions="low_rank")

    def __init__(
        self,
        X: Engine,
        draws: Draws,
        *,
        lr: float,
        sigma: float,
        rank: int,
        population: int,
        fitness: Literal["raw", "zscore"] = "raw",
        weight_decay: float = 0.0,
    ) -> None:
        check_not_negative("lr", lr)
        check_positive("sigma", sigma)
        check_count("rank", rank)
        if population < 2 or population % 2:
            raise bad_value("population", population, "an even number >= 2: pairs of mirror images")
        check_not_negative("weight_decay", weight_decay)
        self.X, self.draws, self.lr, self.sigma = X, draws, lr, sigma
        self.rank, self.pairs, self.fitness = rank, population // 2, fitness
        self.weight_decay = weight_decay
        self.t = 0

    def step(self, score: Score) -> Report:
        """N forwards and one update."""
        t, self.t = self.t, self.t + 1
        N, root = 2 * self.pairs, sqrt(self.rank)
        E = self._population(t)
        each = self.sigma * torch.eye(self.pairs, dtype=torch.float64)
        members = torch.cat([each, -each])
        losses = score(E, among(E, members / root, vectors=members))

        f = -torch.tensor(losses, dtype=torch.float64)
        if self.fitness == "zscore":
            f = (f - f.mean()) / (f.std(correction=0) + _SMALL)
        self.X.decay(self.lr * self.weight_decay)
        step = self.lr / (N * self.sigma) * (f[: self.pairs] - f[self.pairs :])
        self.X.move(E, among(E, step / root, vectors=step))
        spread = max(losses) - min(losses)
        return Report(fmean(losses), forwards=N, scalars={"loss_spread": spread})

    def _population(self, t: int) -> Subspace:
        """U_1 .. U_{N/2}, V_1 .. V_{N/2} and e_1 .. e_{N/2}, side by side."""
        matrices = {name: x for name, x in self.X.X.items() if x.ndim >= 2}
        vectors = {name: x for name, x in self.X.X.items() if x.ndim < 2}
        width = self.pairs * self.rank
        return Subspace(
            self._normal("U", t, {name: (len(x), width) for name, x in matrices.items()}),
            self._normal("V", t, {name: (x[0].numel(), width) for name, x in matrices.items()}),
            self._normal("e", t, {name: (x.numel(), self.pairs) for name, x in vectors.items()}),
        )

    def _normal(
        self, role: str, t: int, shapes: Mapping[str, tuple[int, int]]
    ) -> dict[str, Tensor]:
        if not shapes:
            return {}
        x = self.X.X[next(iter(shapes))]
        return self.draws.normal(role, t, shapes, x.device, wide(x.dtype))
