"""MeZO: zeroth-order SGD along full Gaussian directions that are never stored.

Source: Malladi et al., "Fine-Tuning Language Models with Just Forward Passes", arXiv 2305.17333,
algorithm 1, and n-SPSA of its definition 1 with appendix A.2. At step t, with z_i ~ N(0, I) drawn
again whenever it is needed:

    c_i = ( L(theta + eps z_i; B) - L(theta - eps z_i; B) ) / (2 eps),   i = 1 .. n_t
    theta <- theta - lr / n_t sum_i c_i z_i

n_t is n, or max(1, floor(n t / T)) with `directions_schedule=linear`. The published code's flag
that leaves out 1 / n_t, so that the step grows with n_t as in appendix A.2, is
`scale_lr_with_directions`. That code holds the average of c_i z_i as a gradient, as large as the
weights; here every z_i is drawn again.

The weights are moved in place. With one direction, that is in three passes: to theta + eps z, to
theta - eps z, and from there to the end of the step, the way back and the update being one. On a
GPU a pass draws z while it adds it, and nothing but the weights is ever in memory.
"""

from __future__ import annotations

from statistics import fmean
from typing import Literal

from lozo_bench.engine.draws import Draws
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


class Mezo:
    """Full-rank zeroth-order SGD.

    Args:
        theta: the weights.
        draws: source of z.
        lr: learning rate.
        eps: how far the two losses are taken from X.
        weight_decay: matrices shrink by lr * weight_decay a step.
        directions: n; a step costs 2 n_t forwards.
        directions_schedule: ``constant``, or ``linear``: n_t rises from 1 to n over the run.
        total_steps: T; only ``linear`` needs it.
        scale_lr_with_directions: leave out 1 / n_t.
    """

    needs = Needs(directions="full_rank")

    def __init__(
        self,
        theta: Engine,
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
            raise bad_value("total_steps", total_steps, "a whole number >= 1: that of the run")
        if total_steps is not None:
            check_count("total_steps", total_steps)
        self.theta, self.draws = theta, draws
        self.lr, self.eps, self.weight_decay = lr, eps, weight_decay
        self.directions = directions
        self.rises_over = total_steps if directions_schedule == "linear" else None
        self.scale_lr_with_directions = scale_lr_with_directions
        self.t = 0

    def step(self, score: Score) -> Report:
        """2 n_t forwards and one update."""
        t, self.t = self.t, self.t + 1
        n = self._directions(t)
        zs = [Gaussian(self.draws, t, f"z{i}" if i else "z") for i in range(n)]
        losses, cs = [], []
        for z in zs:
            loss_plus, loss_minus = score.full_rank(z, (+self.eps, -self.eps))
            losses.append((loss_plus + loss_minus) / 2)
            cs.append((loss_plus - loss_minus) / (2 * self.eps))
        self.theta.decay(self.lr * self.weight_decay)
        share = 1 if self.scale_lr_with_directions else n
        # The last direction first: its way back is part of its update.
        for z, c in zip(reversed(zs), reversed(cs), strict=True):
            self.theta.full_rank_move(z, -self.lr * c / share)
        return Report(fmean(losses), forwards=2 * n, scalars={"projected_grad": fmean(cs)})

    def _directions(self, t: int) -> int:
        if self.rises_over is None:
            return self.directions
        return max(1, t * self.directions // self.rises_over)
