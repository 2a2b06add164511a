"""EGGROLL: an evolution strategy whose members differ from the weights by low-rank matrices.

Source: Sarkar et al., "Evolution Strategies at the Hyperscale", arXiv 2511.16652. At each step a
population of N members is drawn in N/2 antithetic pairs, +E_i and -E_i:

    (1)  E_i = U_i V_i^T / sqrt(r),   U_i and V_i standard normal
    (2)  f_i = -F(X + sigma E_i; xi)
    (3)  X_l <- X_l + alpha / (N sigma) sum_i s_i E_il

s_i is the fitness f_i itself (`fitness=raw`, which estimates the gradient of the smoothed loss) or
the z-score of f_i in the population (`fitness=zscore`, which the published code uses). The update
has rank N r / 2, whereas a member differs from X by rank r. One-dimensional parameters have
standard normal e_i in place of E_i.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor

from lozo_bench.engine.subspace import Subspace, combination
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
from lozo_bench.optimizers.beside import normal_beside
from lozo_bench.randomness.draws import Draws

_STABILITY = 1e-8  # avoids division by zero if all members have the same loss


class Eggroll:
    """Antithetic low-rank evolution strategy.

    Args:
        engine: holds the weights X.
        draws: source of U_i, V_i and e_i.
        lr: learning rate alpha.
        sigma: distance of the members from X.
        rank: r.
        population: N, an even number; a step costs N forward passes.
        fitness: the weight s_i of a member in the update: ``raw``, f_i; ``zscore``, its z-score.
        weight_decay: each step multiplies the matrices by 1 - lr * weight_decay.
    """

    needs = Needs(directions="low_rank")

    def __init__(
        self,
        engine: Engine,
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
            raise bad_value("population", population, "an even number >= 2: members +E and -E")
        check_not_negative("weight_decay", weight_decay)
        self.engine, self.draws, self.lr, self.sigma = engine, draws, lr, sigma
        self.rank, self.pairs, self.fitness = rank, population // 2, fitness
        self.weight_decay = weight_decay
        self.t = 0

    def step(self, score: Score) -> Report:
        """Make one step: N forward passes and one update."""
        t, self.t = self.t, self.t + 1
        N, root = 2 * self.pairs, sqrt(self.rank)
        UV = self._population(t)
        plus_sigma = self.sigma * torch.eye(self.pairs, dtype=torch.float64)  # row i: only E_i
        members = torch.cat([plus_sigma, -plus_sigma])  # +E_1 .. +E_{N/2}, -E_1 .. -E_{N/2}
        losses = score(UV, combination(UV, members / root, vectors=members))

        s = -torch.tensor(losses, dtype=torch.float64)  # (2)
        if self.fitness == "zscore":
            s = (s - s.mean()) / (s.std(correction=0) + _STABILITY)
        self.engine.decay(self.lr * self.weight_decay)
        step = self.lr / (N * self.sigma) * (s[: self.pairs] - s[self.pairs :])
        self.engine.move(UV, combination(UV, step / root, vectors=step))  # (3)
        spread = max(losses) - min(losses)
        return Report(fmean(losses), forwards=N, scalars={"loss_spread": spread})

    def _population(self, t: int) -> Subspace:
        """Return U_1 .. U_{N/2}, V_1 .. V_{N/2} and e_1 .. e_{N/2}, side by side."""
        matrices = {name: x for name, x in self.engine.X.items() if x.ndim >= 2}
        vectors = {name: x for name, x in self.engine.X.items() if x.ndim < 2}
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
        devices = {name: self.engine.X[name].device for name in shapes}
        dtype = wide(self.engine.X[next(iter(shapes))].dtype)
        return normal_beside(self.draws, role, t, shapes, devices, dtype)
