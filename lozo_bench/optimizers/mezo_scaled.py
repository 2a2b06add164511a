"""MeZO with z scaled group by group: variance- and expectation-modified SPSA.

Source: Malladi et al., arXiv 2305.17333, appendix B.3 and B.4, definitions 6 and 7. With one number
d for each group of weights (embeddings, output head, each layer; 1 for whatever is in none):

    c = ( L(theta + eps z / d; B) - L(theta - eps z / d; B) ) / (2 eps)
    theta <- theta - lr c (d z)     estimate=variance: unbiased, with another variance
    theta <- theta - lr c z         estimate=expectation: the gradient divided by d

d is the length of the group's weights (`norm=parameters`), or of its gradient: by one backward pass
(`gradient`), or |c| when only that group is perturbed (`gradient_zo`, proposition 1: two forwards a
group). With a gradient's length, `expectation` estimates the normalised gradient. A group whose
length is 0 has d = 1.

The published code does the same, but in its memory-efficient mode, where it perturbs along z and
updates along d z: not here. It finds d anew at each epoch's start (`--recompute_norms`) or once;
here `recompute_every` says after how many steps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from lozo_bench.engine.directions import Only, Scaled
from lozo_bench.engine.draws import Draws
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
from lozo_bench.optimizers.norms import gradient_norms, parameter_norms


class MezoScaled:
    """Full-rank zeroth-order SGD along z scaled by group.

    Args:
        X: the weights.
        draws: source of z.
        lr: learning rate.
        eps: how far the two losses are taken from X, in units of 1 / d.
        estimate: ``variance`` moves along d z, ``expectation`` along z.
        norm: what d is.
        recompute_every: steps after which d is found again; 0: it is found once.
        weight_decay: matrices shrink by lr * weight_decay a step.
    """

    needs = Needs(directions="full_rank")

    def __init__(
        self,
        X: Engine,
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
        self.X, self.draws, self.lr, self.eps = X, draws, lr, eps
        self.estimate, self.norm, self.recompute_every = estimate, norm, recompute_every
        self.weight_decay = weight_decay
        self.needs = replace(MezoScaled.needs, gradient=norm == "gradient")
        self.groups = layer_groups(X.X)
        self.d: dict[str, Tensor] = {}
        self.t, self.found_at = 0, -1

    def step(self, score: Score) -> Report:
        """Two forwards and one update; more where d is found."""
        t, self.t = self.t, self.t + 1
        forwards, backwards = self._find_d(score, t) if self._is_due(t) else (0, 0)
        d = {name: float(self.d[group]) for group, some in self.groups.items() for name in some}
        z = Gaussian(self.draws, t)
        nearer = Scaled(z, {name: 1 / length for name, length in d.items()})
        loss_plus, loss_minus = score.full_rank(nearer, (+self.eps, -self.eps))
        c = (loss_plus - loss_minus) / (2 * self.eps)
        self.X.decay(self.lr * self.weight_decay)
        along = Scaled(z, d) if self.estimate == "variance" else z
        self.X.full_rank_move(along, -self.lr * c)
        return Report(
            (loss_plus + loss_minus) / 2,
            forwards=forwards + 2,
            backwards=backwards,
            scalars={"projected_grad": c},
        )

    def _is_due(self, t: int) -> bool:
        if self.found_at < 0:
            return True
        return self.recompute_every > 0 and t - self.found_at >= self.recompute_every

    def _find_d(self, score: Score, t: int) -> tuple[int, int]:
        """Find d; the forwards and backwards that it took."""
        groups = list(self.groups.values())
        spent = 0, 0
        lengths: list[float] = []
        if not groups:
            pass
        elif self.norm == "parameters":
            lengths = score.noted(lambda: parameter_norms(self.X.X, groups))
        elif self.norm == "gradient":
            lengths, spent = score.noted(lambda: gradient_norms(score, groups)), (1, 1)
        else:
            lengths, spent = self._slopes(score, t), (2 * len(groups), 0)
        self.d = {
            group: torch.tensor(length or 1.0, dtype=torch.float64)
            for group, length in zip(self.groups, lengths, strict=True)
        }
        self.found_at = t
        return spent

    def _slopes(self, score: Score, t: int) -> list[float]:
        """|c| of each group when it alone is perturbed."""
        z = Gaussian(self.draws, t, "d")
        lengths = []
        for names in self.groups.values():
            plus, minus = score.full_rank(Only(z, names), (+self.eps, -self.eps))
            lengths.append(abs(plus - minus) / (2 * self.eps))
        return lengths
