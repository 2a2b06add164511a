"""MeZO: zeroth-order SGD along full-rank Gaussian directions that are never stored.

Source: Malladi et al., "Fine-Tuning Language Models with Just Forward Passes", arXiv 2305.17333,
algorithm 1, and n-SPSA of its definition 1 with appendix A.2. The paper calls the weights theta; in
all files here they are X. At step t, with z_i ~ N(0, I) drawn again whenever it is needed:

    (1)  c_i = ( L(X + eps z_i; B) - L(X - eps z_i; B) ) / (2 eps),   i = 1 .. n_t
    (2)  X <- X - lr / n_t sum_i c_i z_i

n_t is n, or max(1, floor(n t / T)) with `directions_schedule=linear`. With
`scale_lr_with_directions`, as with a flag of the published code, the 1 / n_t of (2) is left out, so
that the step grows with n_t as in appendix A.2. The published code stores the average of c_i z_i as
a gradient, which is as large as the weights; here every z_i is drawn again.

The weights are moved in place. With one direction this takes three passes over them: to X + eps z,
to X - eps z, and from there to the end of the step, so that the way back and the update are one
pass. On a GPU a pass draws z while it adds it, and only the weights are ever in memory.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import Literal

from lozo_bench.engine.gaussian import Gaussian
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
from lozo_bench.optimizers.estimate import central_difference
from lozo_bench.randomness.draws import Draws


class Mezo:
    """Full-rank zeroth-order SGD.

    Args:
        engine: holds the weights X.
        draws: source of z.
        lr: learning rate.
        eps: distance from X at which the two losses are taken.
        weight_decay: each step multiplies the matrices by 1 - lr * weight_decay.
        directions: n; a step costs 2 n_t forward passes.
        directions_schedule: ``constant``, or ``linear``: n_t rises from 1 to n over the run.
        total_steps: T; required by ``linear`` only.
        scale_lr_with_directions: leave out 1 / n_t.
    """

    needs = Needs(directions="full_rank")

    def __init__(
        self,
        engine: Engine,
        draws: Draws,
        *,
        lr: float,
        eps: float,
        weight_decay: float = 0.0,
        directions: int = 1,
        directions_schedule: Literal["constant", "linear"] = "constant",
        total_steps: int | None = None,
        scale_lr_with_directions: bool = False,
    ) -> None:
        check_not_negative("lr", lr)
        check_positive("eps", eps)
        check_not_negative("weight_decay", weight_decay)
        check_count("directions", directions)
        if directions_schedule == "linear" and total_steps is None:
            raise bad_value(
                "total_steps", total_steps, "a whole number >= 1: the number of steps of the run"
            )
        if total_steps is not None:
            check_count("total_steps", total_steps)
        self.engine, self.draws = engine, draws
        self.lr, self.eps, self.weight_decay = lr, eps, weight_decay
        self.directions = directions
        self.rises_over = total_steps if directions_schedule == "linear" else None
        self.needs = replace(Mezo.needs, any_length=self.rises_over is None)
        self.scale_lr_with_directions = scale_lr_with_directions
        self.t = 0

    def step(self, score: Score) -> Report:
        """Make one step: 2 n_t forward passes and one update."""
        t, self.t = self.t, self.t + 1
        n = self._direction_count(t)
        zs = [Gaussian(self.draws, t, f"z{i}" if i else "z") for i in range(n)]
        losses, cs = [], []
        for z in zs:
            loss, c = central_difference(score.full_rank, z, self.eps)  # (1)
            losses.append(loss)
            cs.append(c)
        self.engine.decay(self.lr * self.weight_decay)
        divisor = 1 if self.scale_lr_with_directions else n
        # The weights are still at X - eps z of the last direction. Its way back to X is part of its
        # update, so that it must be moved along first.
        for z, c in zip(reversed(zs), reversed(cs), strict=True):
            self.engine.full_rank_move(z, -self.lr * c / divisor)  # (2)
        return Report(fmean(losses), forwards=2 * n, scalars={"projected_grad": fmean(cs)})

    def _direction_count(self, t: int) -> int:
        """Return n_t."""
        if self.rises_over is None:
            return self.directions
        return max(1, t * self.directions // self.rises_over)
