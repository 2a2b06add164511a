"""MeZO-Adam: Adam with MeZO's estimate c z in the place of the gradient.

Source: Malladi et al., arXiv 2305.17333, appendix B.2 and Table 7. ZO-Adam of ZO-Bench (Zhang et
al., arXiv 2402.11592) is the same method with another grid of learning rates. With z ~ N(0, I):

    (1)  c = ( L(X + eps z; B) - L(X - eps z; B) ) / (2 eps),   g = c z
    (2)  m <- beta1 m + (1 - beta1) g,     v <- beta2 v + (1 - beta2) g^2       (element by element)
    (3)  X <- X - lr m / (1 - beta1^k) / ( sqrt(v / (1 - beta2^k)) + adam_eps )

k counts updates. Weight decay is decoupled from the moments as in AdamW (arXiv 1711.05101), and
applies to matrices only. MeZO's paper describes a version that stores no moments and recomputes
them from all scalars so far; its code stores them, as is done here.

The moments are float32 for half-precision weights. Some of ZO-Bench's runs kept them in float16,
where the usual adam_eps of 1e-8 is 0. ZO-Bench's weight decay option had no effect.
"""

from __future__ import annotations

from torch import Tensor

from lozo_bench.engine.directions import Given
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.optimizers.base import (
    Engine,
    Needs,
    Report,
    Score,
    check_fraction,
    check_not_negative,
    check_positive,
)
from lozo_bench.optimizers.estimate import central_difference
from lozo_bench.optimizers.mezo_momentum import zeros_like_weights
from lozo_bench.optimizers.moments import accumulate, adam_direction
from lozo_bench.randomness.draws import Draws


class MezoAdam:
    """Adam along full-rank zeroth-order estimates.

    Args:
        engine: holds the weights X.
        draws: source of z.
        lr: learning rate.
        eps: distance from X at which the two losses are taken.
        beta1: fraction of the first moment m that is kept at each step.
        beta2: fraction of the second moment v that is kept at each step.
        adam_eps: added to the root of the second moment.
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
        beta1: float = 0.9,
        beta2: float = 0.999,
        adam_eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        check_not_negative("lr", lr)
        check_positive("eps", eps)
        check_fraction("beta1", beta1)
        check_fraction("beta2", beta2)
        check_positive("adam_eps", adam_eps)
        check_not_negative("weight_decay", weight_decay)
        self.engine, self.draws, self.lr, self.eps = engine, draws, lr, eps
        self.beta1, self.beta2, self.adam_eps = beta1, beta2, adam_eps
        self.weight_decay = weight_decay
        self.m: dict[str, Tensor] = {}
        self.v: dict[str, Tensor] = {}
        self.t = self.updates = 0

    def step(self, score: Score) -> Report:
        """Make one step: two forward passes and one update."""
        t, self.t = self.t, self.t + 1
        z = Gaussian(self.draws, t)
        loss, c = central_difference(score.full_rank, z, self.eps)  # (1)
        self._update_moments(z, c)
        self.engine.decay(self.lr * self.weight_decay)
        self.engine.full_rank_move(Given(self._adam_step), -self.lr)  # (3)
        return Report(loss, forwards=2, scalars={"projected_grad": c})

    def _update_moments(self, z: Gaussian, c: float) -> None:
        """Apply equation (2)."""
        if not self.updates:
            self.m, self.v = zeros_like_weights(self.engine), zeros_like_weights(self.engine)
        self.updates += 1
        accumulate(self.m, self.v, z, c, self.engine.X, (self.beta1, self.beta2))

    def _adam_step(self, name: str, start: int, stop: int) -> Tensor:
        """Return the factor of -lr in equation (3), for elements ``start`` to ``stop`` - 1."""
        m, v = (moment[name].view(-1)[start:stop] for moment in (self.m, self.v))
        return adam_direction(m, v, self.updates, (self.beta1, self.beta2), self.adam_eps)
