"""Full-rank directions derived from other directions: transformed, restricted, scaled or given.

Each class implements the protocol `score.FullRank`. The derived direction is computed piece by
piece while it is added to the weights, so it never takes memory of the size of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from lozo_bench.engine.gaussian import Gaussian, Group, add, group_elements
from lozo_bench.engine.protocol import FullRank
from lozo_bench.randomness.draws import Draws


class Transformed(Gaussian):
    """The direction f(z), where z is the `Gaussian` direction with the same key.

    z is always drawn in pieces, also on CUDA, because the kernel that draws and adds z in one pass
    over the weights cannot apply f.

    Args:
        draws: source of z.
        step: the optimizer's step, a part of the key of z.
        change: f(name, start, piece), where ``piece`` holds the elements of z for the flattened
            weight ``name`` from index ``start`` on; returns a tensor of the same shape and dtype.
        role: the stream of ``draws``, a part of the key of z.
    """

    def __init__(
        self,
        draws: Draws,
        step: int,
        change: Callable[[str, int, Tensor], Tensor],
        role: str = "z",
    ) -> None:
        super().__init__(draws, step, role)
        self.change = change

    def _in_one_pass(self, x: Tensor) -> bool:
        return False

    def _fresh(self, group: Group) -> list[Tensor]:
        drawn = zip(group[2], super()._fresh(group), strict=True)
        return [self.change(name, start, z) for (name, start, _), z in drawn]


class Restricted:
    """The direction z on the weights in ``names``, and 0 on all other weights."""

    def __init__(self, z: FullRank, names: Collection[str]) -> None:
        self.z, self.names = z, names

    def move(self, X: Mapping[str, Tensor], by: float) -> None:
        """See `FullRank`."""
        self.z.move({name: x for name, x in X.items() if name in self.names}, by)


class Scaled:
    """The direction z, multiplied by one factor for each weight; a missing factor means 1."""

    def __init__(self, z: FullRank, factors: Mapping[str, float]) -> None:
        self.z, self.factors = z, factors

    def move(self, X: Mapping[str, Tensor], by: float) -> None:
        """See `FullRank`."""
        by_factor: dict[float, dict[str, Tensor]] = {}
        for name, x in X.items():
            by_factor.setdefault(self.factors.get(name, 1.0), {})[name] = x
        for factor, weights in by_factor.items():
            self.z.move(weights, by * factor)


class Given:
    """A direction that a function returns piece by piece, for example from stored momentum.

    Args:
        piece: piece(name, start, stop) returns the elements start, ..., stop - 1 of the direction
            for the flattened weight ``name``; float64 for float64 weights, otherwise float32.
    """

    def __init__(self, piece: Callable[[str, int, int], Tensor]) -> None:
        self.piece = piece

    @torch.no_grad()
    def move(self, X: Mapping[str, Tensor], by: float) -> None:
        """See `FullRank`."""
        for name, x in X.items():
            size = group_elements(x.device)
            for start in range(0, x.numel(), size):
                stop = min(start + size, x.numel())
                add(x.view(-1)[start:stop], self.piece(name, start, stop), by)
