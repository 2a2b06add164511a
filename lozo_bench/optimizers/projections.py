"""Fixed random projections of a searched point, which are drawn from their keys.

A projection is a matrix P that never changes:

    normal     P_ij ~ N(0, s^2),  s = alpha std / (sqrt(d) sigma)
    uniform    P_ij ~ U(-1/sqrt(q), 1/sqrt(q)),  q the number of its columns

A normal one is scaled so that what is projected is alike to what enters the layer, of which std is
the standard deviation (BBTv2, arXiv 2205.11200); d is the number of searched numbers of a layer.
The uniform one is the default of torch's linear layer (BBT, arXiv 2201.03514).
"""

from __future__ import annotations

from math import sqrt
from typing import Literal

import torch
from torch import Tensor

from lozo_bench.randomness.draws import Draws

Distribution = Literal["normal", "uniform"]

# A projection stays in memory if those of all layers have at most this many entries together;
# larger ones are drawn again in each turn, which costs less than the turn's forward passes.
_KEPT_ENTRIES = 2**26


class Projection:
    """A random matrix P [size, inputs].

    Args:
        draws: source of P.
        name: the key of P.
        size: number of entries of a projected vector.
        inputs: number of entries of the vector that is projected.
        distribution: ``normal``: standard normal entries, to be multiplied by s;
            ``uniform``: between -1/sqrt(q) and 1/sqrt(q).
        copies: how many projections of this size there are, which decides whether P is kept.
    """

    def __init__(
        self,
        draws: Draws,
        name: str,
        size: int,
        inputs: int,
        distribution: Distribution,
        copies: int = 1,
    ) -> None:
        self.draws, self.name, self.size, self.inputs = draws, name, size, inputs
        self.distribution = distribution
        self.keep = copies * size * inputs <= _KEPT_ENTRIES
        self._kept: Tensor | None = None

    def __call__(self, Z: Tensor) -> Tensor:
        """Return P z for each row z of Z [K, inputs]: [K, size], like Z in dtype and device.

        Each row is projected by itself. A row's result thus does not depend on the other rows, and
        an incumbent has the bits of the candidate that it was.
        """
        P = self._matrix(Z) if self._kept is None else self._kept
        if self.keep:
            self._kept = P
        return torch.stack([P @ z for z in Z])

    def _matrix(self, like: Tensor) -> Tensor:
        if self.distribution == "normal":
            shapes = {self.name: (self.size, self.inputs)}
            drawn = self.draws.normal("projection", 0, shapes, like.device, like.dtype)
            return drawn[self.name]
        count = self.size * self.inputs
        u = self.draws.uniform_range("projection", 0, self.name, 0, count, like.device)
        return ((2 * u.to(like) - 1) / sqrt(self.inputs)).view(self.size, self.inputs)


def projection_std(alpha: float, std: float, d: int, sigma: float) -> float:
    """Return s, the standard deviation of a normal projection's entries."""
    return alpha * std / (sqrt(d) * sigma)
