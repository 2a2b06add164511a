"""FORWARD-ONLY: the norm of a module's gradient, estimated from losses alone.

With z ~ N(0, I) for the A and B of all modules, and z_i its part for module i, the derivative of
the loss along z_i is c_i, and E[c_i^2] = ||dL/dA_i||^2 + ||dL/dB_i||^2. Hence the score

    (1)  S_i = sqrt( the mean over the directions z of c_i^2 )

It has two forms. ``each`` takes a pair of losses for each module:

    (2)  c_i = ( L(X + eps z_i) - L(X - eps z_i) ) / (2 eps)

``signs`` takes a pair for each of K patterns of signs s_k, which move all modules at once. One pair
alone gives only a signed sum of all c_i; the patterns tell them apart:

    (3)  d_k = ( L(X + eps sum_i s_ki z_i) - L(X - eps sum_i s_ki z_i) ) / (2 eps)
    (4)  c_i = 1/K sum_k s_ki d_k

The patterns are rows of a Hadamard matrix of M >= N columns for N modules, in an order that is
drawn. With K = M, (4) is exact to first order, and costs more than (2). With fewer, the variance of
c_i is (M - K) / (K (M - 1)) sum_{j != i} c_j^2: a module with a large slope is found with a few
patterns, small ones are not told apart.

At B = 0 the derivative by A is 0, and that by B is s dL/dW A^T, which is not: no score is 0, as all
of SNIP and SYNFLOW are. Like GRAD-NORM it then depends on s, r and the layer's width, so that
``normalise=rank`` makes LoRA modules and shortcuts comparable.

Nothing is differentiated and all losses are recorded, so that a zeroth-order run stays replayable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lozo_bench.engine.directions import Restricted, Scaled
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.engine.protocol import FullRank
from lozo_bench.engine.score import Score
from lozo_bench.optimizers.base import check_count, check_positive
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.low_rank_modules import LowRankModule


class ForwardOnly:
    """Scores a module by the slope of the loss along random directions of its A and B.

    Args:
        eps: distance from the weights at which the two losses of a pair are taken.
        form: ``each``: 2 forward passes a module; ``signs``: 2 forward passes a pattern.
        patterns: K; used by ``signs`` only. More than M are M.
        directions: how many z; each costs as many forward passes again.
    """

    gradient = False
    batches: int | None = None

    def __init__(
        self,
        *,
        eps: float,
        form: Literal["each", "signs"] = "each",
        patterns: int = 16,
        directions: int = 1,
    ) -> None:
        check_positive("eps", eps)
        check_count("patterns", patterns)
        check_count("directions", directions)
        self.eps, self.form = eps, form
        self.patterns, self.directions = patterns, directions

    def scores(
        self, modules: Sequence[LowRankModule], batches: Sequence[Score], draws: Draws, number: int
    ) -> Tensor:
        """See `Proxy`."""
        slopes = self._each if self.form == "each" else self._by_signs
        squares = torch.zeros(len(modules), dtype=torch.float64)
        for step in range(number * self.directions, (number + 1) * self.directions):
            squares += slopes(modules, batches, draws, step).square()
        return (squares / self.directions).sqrt()

    def _each(
        self, modules: Sequence[LowRankModule], batches: Sequence[Score], draws: Draws, step: int
    ) -> Tensor:
        """Return c_i of each module, equation (2)."""
        z = Gaussian(draws, step, _ROLE)
        found = [self._slope(Restricted(z, module.names), batches) for module in modules]
        return torch.tensor(found, dtype=torch.float64)

    def _by_signs(
        self, modules: Sequence[LowRankModule], batches: Sequence[Score], draws: Draws, step: int
    ) -> Tensor:
        """Return an estimate of c_i of each module, equations (3) and (4)."""
        z = Gaussian(draws, step, _ROLE)
        names = [name for module in modules for name in module.names]
        signs = _patterns(self.patterns, len(modules), draws, step)
        total = torch.zeros(len(modules), dtype=torch.float64)
        for s in signs:
            factors = dict(zip(names, s.repeat_interleave(2).tolist(), strict=True))
            total += s * self._slope(Restricted(Scaled(z, factors), names), batches)
        return total / len(signs)

    def _slope(self, z: FullRank, batches: Sequence[Score]) -> float:
        """Return the slope along z of the mean loss of the batches' rows."""
        total = 0.0
        for batch in batches:
            plus, minus = batch.full_rank(z, [self.eps, -self.eps])
            total += batch.examples * (plus - minus) / (2 * self.eps)
        return total / sum(batch.examples for batch in batches)


_ROLE = "allocation/z"


def _patterns(count: int, modules: int, draws: Draws, step: int) -> Tensor:
    """Return rows of a Hadamard matrix in a random order, [K, N] of -1 and 1, float64."""
    size = 1 << (modules - 1).bit_length()
    order = draws.uniform_range("allocation/patterns", step, "order", 0, size).argsort(stable=True)
    rows, columns = order[:count, None], torch.arange(modules)
    bits = rows & columns
    odd = torch.zeros_like(bits)
    while bits.any():
        odd, bits = odd ^ (bits & 1), bits >> 1
    return 1.0 - 2.0 * odd.double()
