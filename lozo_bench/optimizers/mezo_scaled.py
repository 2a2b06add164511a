"""MeZO with z scaled by layer group: variance-modified and expectation-modified SPSA.

Source: Malladi et al., arXiv 2305.17333, appendix B.3 and B.4, definitions 6 and 7. Each group of
weights (the embeddings, the output head, each layer) has one number d; weights in no group have
d = 1. With z ~ N(0, I):

    (1)  c = ( L(X + eps z / d; B) - L(X - eps z / d; B) ) / (2 eps)
    (2)  X <- X - lr c (d z)     estimate=variance: unbiased, with another variance
         X <- X - lr c z         estimate=expectation: estimates the gradient divided by d

d is the norm of the group's weights (`norm=parameters`) or of the group's gradient. The gradient's
norm is computed by one backward pass (`norm=gradient`), or estimated by |c| when only that group is
perturbed (`norm=gradient_zo`, proposition 1: two forward passes per group). With a gradient's norm,
`expectation` estimates the normalised gradient. A group whose norm is 0 has d = 1.

The published code does the same, except in its memory-efficient mode, where it perturbs along z
and updates along d z; that mode is not reproduced here. It computes d once or, with
`--recompute_norms`, at the start of each epoch; here `recompute_every` is a number of steps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from lozo_bench.engine.directions import Restricted, Scaled
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.errors import bad_value
from lozo_bench.optimizers.base import (
    Engine,
    Needs,
    Report,
    Score,
    check_not_negative,
    check_positive,
)
from lozo_bench.optimizers.blocks import layer_groups
from lozo_bench.optimizers.estimate import central_difference
from lozo_bench.optimizers.norms import gradient_norms, parameter_norms
from lozo_bench.randomness.draws import Draws


class MezoScaled:
    """Full-rank zeroth-order SGD along z scaled by layer group.

    Args:
        engine: holds the weights X.
        draws: source of z.
        lr: learning rate.
        eps: distance from X at which the two losses are taken, in units of 1 / d.
        estimate: ``variance`` updates along d z, ``expectation`` along z.
        norm: which norm d is: of the weights (``parameters``), of the gradient by a backward pass
            (``gradient``), or of the gradient by losses (``gradient_zo``).
        recompute_every: number of steps after which d is computed again; 0: only once.
        weight_decay: each step multiplies the matrices by 1 - lr * weight_decay.
    """

    needs = Needs(directions="full_rank")

    def __init__(
        self,
        engine: Engine,
        draws: Draws,
        *,
        lr: float,
        eps: float,
        estimate: Literal["variance", "expectation"] = "variance",
        norm: Literal["parameters", "gradient", "gradient_zo"] = "parameters",
        recompute_every: int = 0,
        weight_decay: float = 0.0,
    ) -> None:
        check_not_negative("lr", lr)
        check_positive("eps", eps)
        if recompute_every < 0:
            raise bad_value("recompute_every", recompute_every, "a whole number >= 0")
        check_not_negative("weight_decay", weight_decay)
        self.engine, self.draws, self.lr, self.eps = engine, draws, lr, eps
        self.estimate, self.norm, self.recompute_every = estimate, norm, recompute_every
        self.weight_decay = weight_decay
        self.needs = replace(MezoScaled.needs, gradient=norm == "gradient")
        self.groups = layer_groups(engine.X)
        self.d: dict[str, Tensor] = {}
        self.t, self.found_at = 0, -1

    def step(self, score: Score) -> Report:
        """Make one step: two forward passes and one update; more passes if d is computed."""
        t, self.t = self.t, self.t + 1
        forwards, backwards = self._compute_d(score, t) if self._is_due(t) else (0, 0)
        d = {name: float(self.d[group]) for group, names in self.groups.items() for name in names}
        z = Gaussian(self.draws, t)
        z_over_d = Scaled(z, {name: 1 / norm for name, norm in d.items()})
        loss, c = central_difference(score.full_rank, z_over_d, self.eps)  # (1)
        self.engine.decay(self.lr * self.weight_decay)
        update = Scaled(z, d) if self.estimate == "variance" else z
        self.engine.full_rank_move(update, -self.lr * c)  # (2)
        return Report(
            loss,
            forwards=forwards + 2,
            backwards=backwards,
            scalars={"projected_grad": c},
        )

    def _is_due(self, t: int) -> bool:
        if self.found_at < 0:
            return True
        return self.recompute_every > 0 and t - self.found_at >= self.recompute_every

    def _compute_d(self, score: Score, t: int) -> tuple[int, int]:
        """Compute d, and return the numbers of forward and backward passes that this took."""
        groups = list(self.groups.values())
        passes = 0, 0
        norms: list[float] = []
        if not groups:
            pass
        elif self.norm == "parameters":
            norms = score.recorded_mean(lambda: parameter_norms(self.engine.X, groups))
        elif self.norm == "gradient":
            norms, passes = score.recorded_mean(lambda: gradient_norms(score, groups)), (1, 1)
        else:
            norms, passes = self._gradient_norms_by_losses(score, t), (2 * len(groups), 0)
        self.d = {
            group: torch.tensor(norm or 1.0, dtype=torch.float64)
            for group, norm in zip(self.groups, norms, strict=True)
        }
        self.found_at = t
        return passes

    def _gradient_norms_by_losses(self, score: Score, t: int) -> list[float]:
        """Return |c| of each group when it alone is perturbed (proposition 1)."""
        z = Gaussian(self.draws, t, "d")
        norms = []
        for names in self.groups.values():
            _, c = central_difference(score.full_rank, Restricted(z, names), self.eps)
            norms.append(abs(c))
        return norms
