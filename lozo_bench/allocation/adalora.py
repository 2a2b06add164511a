"""AdaLoRA: the least important triplets of all matrices are taken away while training goes on.

Source: Zhang et al., "AdaLoRA: Adaptive budget allocation for parameter-efficient fine-tuning",
arXiv 2303.10512, with the arithmetic of peft's `tuners/adalora/layer.py`. W + (alpha / r) P diag(E)
Q has r triplets k, each of a column of P, an entry of E and a row of Q. After step t, with g the
gradient of an entry w, for every entry:

    (1)  I <- beta1 I + (1 - beta1) |w g|,   U <- beta2 U + (1 - beta2) | |w g| - I |,   s = I U
    (2)  S_k = s(E_k) + mean s(P_k) + mean s(Q_k)
    (3)  b_t = b_T + (b_0 - b_T) (1 - (t - t_i) / (T - t_f - t_i))^3   for t_i < t < T - t_f

Every ``interval`` steps in that phase, E is set to 0 for all triplets but the b_t with the largest
S_k; they get gradients, and may come back. From step T - t_f on, the b_T that are left then stay.
b_0 is r times the number of matrices, and b_T is ``target_r`` times that number.

    (4)  gamma times the mean over all P and Q of ||P^T P - I||_F, or ||Q Q^T - I||_F

is minimized beside the loss. The loss that is reported is without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from lozo_bench.allocation.base import Length
from lozo_bench.allocation.inner import Around
from lozo_bench.engine.protocol import Engine
from lozo_bench.errors import UserError, bad_value
from lozo_bench.optimizers.base import (
    Event,
    Needs,
    Optimizer,
    Report,
    Score,
    check_count,
    check_not_negative,
)
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning import adalora
from lozo_bench.tuning.base import Tuned, Tuning


class AdaLora:
    """Leaves the most important triplets in the function.

    Args:
        target_r: how many triplets a matrix has in the mean at the end.
        initial: t_i, as a share of the run's steps.
        final: t_f, as a share of the run's steps.
        interval: steps from one choice of triplets to the next.
        beta1: fraction of I that is kept at each step.
        beta2: fraction of U that is kept at each step.
        gamma: factor of the penalty (4).
    """

    def __init__(
        self,
        *,
        target_r: int,
        initial: float,
        final: float,
        interval: int,
        beta1: float,
        beta2: float,
        gamma: float,
    ) -> None:
        check_count("target_r", target_r)
        check_count("interval", interval)
        for key, share in (("initial", initial), ("final", final)):
            if not 0 <= share < 1:
                raise bad_value(key, share, "a number from 0 to below 1")
        if initial + final >= 1:
            raise bad_value("final", final, f"below {1 - initial:g}, or nothing is taken away")
        for key, beta in (("beta1", beta1), ("beta2", beta2)):
            if not 0 < beta < 1:
                raise bad_value(key, beta, "a number between 0 and 1")
        check_not_negative("gamma", gamma)
        self.target_r, self.initial, self.final = target_r, initial, final
        self.interval, self.beta1, self.beta2, self.gamma = interval, beta1, beta2, gamma

    def needs(self, inner: Needs, tuning: Tuning) -> Needs:
        """See `Allocation`."""
        if not isinstance(tuning, adalora.AdaLora):
            name = type(tuning).__name__
            raise UserError(f"allocation: AdaLoRA is given with {name}; allowed: tuning=adalora")
        if not inner.updates_by_gradient:
            raise UserError(
                "allocation: AdaLoRA reads the gradients of the steps; allowed: a first-order "
                "optimizer, such as optimizer=adamw, or allocation=none"
            )
        if self.target_r > tuning.r:
            raise bad_value("allocation.target_r", self.target_r, f"up to tuning.r={tuning.r}")
        return inner

    def around(
        self, optimizer: Optimizer, engine: Engine, tuned: Tuned, draws: Draws, length: Length
    ) -> Optimizer:
        """See `Allocation`."""
        if getattr(optimizer, "scaled", False):
            raise bad_value("model.autocast", "fp16", "null or bf16 with this allocation")
        return FewerTriplets(optimizer, engine, self, adalora.matrices(tuned.model), length.steps)

    def phase(self, steps: int) -> tuple[int, int]:
        """Return t_i and T - t_f, between which triplets are taken away."""
        return round(self.initial * steps), steps - round(self.final * steps)

    def budget(self, t: int, steps: int, first: int, last: int) -> int:
        """Return b_t, equation (3), in steps before T - t_f."""
        begin, end = self.phase(steps)
        if t <= begin:
            return first
        share = 1 - (t - begin) / (end - begin) if t < end else 0.0
        return int((first - last) * share**3 + last)

    def is_due(self, t: int, steps: int) -> bool:
        """Return whether triplets are chosen after step t."""
        begin, end = self.phase(steps)
        return t == end or (begin < t < end and t % self.interval == 0)


class FewerTriplets(Around):
    """An optimizer after whose steps triplets are taken away.

    Args:
        optimizer: makes the steps.
        engine: holds the weights.
        options: what the config says.
        matrices: the adapted matrices.
        steps: T.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        engine: Engine,
        options: AdaLora,
        matrices: Sequence[adalora.Matrix],
        steps: int,
    ) -> None:
        super().__init__(optimizer, engine, optimizer.needs)
        self.setup = _Setup(options, tuple(matrices), steps)
        X = {name: engine.X[name] for each in matrices for name in (each.P, each.E, each.Q)}
        self.I = {name: torch.zeros_like(x, requires_grad=False) for name, x in X.items()}
        self.U = {name: torch.zeros_like(x, requires_grad=False) for name, x in X.items()}
        self.kept = {each.E: torch.ones(len(X[each.E]), dtype=torch.bool) for each in matrices}
        self.t = 0

    def step(self, score: Score) -> Report:
        """Make a step of the wrapped optimizer, and take triplets away if it is time to."""
        setup = self.setup
        if setup.options.gamma:
            score = cast(Score, _Penalized(score, setup))
        report = self.inner.step(score)
        self.t += 1
        t, (_, end) = self.t, setup.options.phase(setup.steps)
        if t < end:
            self._gather()
        events = [self._choose(t)] if setup.options.is_due(t, setup.steps) else []
        if events or t > end:
            self._take_away()
        # A row of log for each step would say little; the set that stays is an event.
        return replace(report, events=[*report.events, *(events if t == end else [])])

    @torch.no_grad()
    def _gather(self) -> None:
        """Apply equation (1)."""
        beta1, beta2 = self.setup.options.beta1, self.setup.options.beta2
        for name in self.I:
            w = self.engine.X[name]
            if w.grad is None:
                continue
            sensitivity = (w * w.grad).abs()
            self.I[name] = beta1 * self.I[name] + (1 - beta1) * sensitivity
            gap = (sensitivity - self.I[name]).abs()
            self.U[name] = beta2 * self.U[name] + (1 - beta2) * gap

    def _choose(self, t: int) -> Event:
        """Choose the triplets that stay, equations (2) and (3), and describe them."""
        setup, scores = self.setup, [self._scores(each) for each in self.setup.matrices]
        sizes = [len(each) for each in scores]
        budget = setup.options.budget(
            t, setup.steps, sum(sizes), setup.options.target_r * len(sizes)
        )
        best = torch.cat(scores).argsort(descending=True, stable=True)[:budget]
        chosen = torch.zeros(sum(sizes), dtype=torch.bool)
        chosen[best] = True
        for each, kept in zip(setup.matrices, torch.split(chosen, sizes), strict=True):
            self.kept[each.E] = kept.clone()
        ranks = [int(self.kept[each.E].sum()) for each in setup.matrices]
        values: dict[str, float | str] = {
            "enabled": "".join(str(int(rank > 0)) for rank in ranks),
            "ranks": " ".join(map(str, ranks)),
            "modules": " ".join(each.name for each in setup.matrices),
        }
        return Event("allocation", values)

    def _scores(self, matrix: adalora.Matrix) -> Tensor:
        """Return S_k of each triplet of a matrix, [r] on the CPU."""
        s = {name: self.I[name] * self.U[name] for name in (matrix.P, matrix.E, matrix.Q)}
        found = s[matrix.E].flatten() + (s[matrix.P].mean(0) + s[matrix.Q].mean(1))
        return found.to("cpu", torch.float64)

    @torch.no_grad()
    def _take_away(self) -> None:
        for name, kept in self.kept.items():
            E = self.engine.X[name]
            E.masked_fill_(~kept[:, None].to(E.device), 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class _Setup:
    options: AdaLora
    matrices: tuple[adalora.Matrix, ...]
    steps: int


class _Penalized:
    """A `Score` that adds the gradient of the penalty."""

    def __init__(self, score: Score, setup: _Setup) -> None:
        self._score, self._setup = score, setup

    def __getattr__(self, name: str) -> Any:
        return getattr(self._score, name)

    def differentiate(self, scale: float = 1.0) -> float:
        """See `Score`."""
        loss = self._score.differentiate(scale)
        penalty = orthogonality(self._score.engine.X, self._setup.matrices)
        torch.autograd.backward(scale * self._setup.options.gamma * penalty)
        return loss


def orthogonality(X: Mapping[str, Tensor], matrices: Sequence[adalora.Matrix]) -> Tensor:
    """Return the mean over all P and Q of ||P^T P - I||_F, or ||Q Q^T - I||_F."""
    products = [x for each in matrices for x in (_square(X[each.P].T), _square(X[each.Q]))]
    gaps = [torch.linalg.norm(x - torch.eye(len(x)).to(x)) for x in products]
    return torch.stack(gaps).mean()


def _square(x: Tensor) -> Tensor:
    return x @ x.T
