"""Directions of full rank that are made of others: changed, scaled or cut down, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.gaussian import GROUP_ELEMENTS, Gaussian, Group, add
from lozo_bench.engine.score import FullRank


class Changed(Gaussian):
    """f(z) for the z that `Gaussian` has under the same key; on every device drawn in pieces.

    Args:
        draws: source of z.
        step: which z: the optimizer's step.
        change: f(name, first element, flat piece of z), a tensor like the piece.
        role: which stream of ``draws``.
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


class Only:
    """A direction on the weights of some names, and 0 elsewhere."""

    def __init__(self, z: FullRank, names: Collection[str]) -> None:
        self.z, self.names = z, names

    def move(self, X: Mapping[str, Tensor], by: float) -> None:
        """See `FullRank`."""
        self.z.move({name: x for name, x in X.items() if name in self.names}, by)


class Scaled:
    """A direction times a number for each weight; 1 where there is none."""

    def __init__(self, z: FullRank, factors: Mapping[str, float]) -> None:
        self.z, self.factors = z, factors

    def move(self, X: Mapping[str, Tensor], by: float) -> None:
        """See `FullRank`."""
        alike: dict[float, dict[str, Tensor]] = {}
        for name, x in X.items():
            alike.setdefault(self.factors.get(name, 1.0), {})[name] = x
        for factor, some in alike.items():
            self.z.move(some, by * factor)


class Dense:
    """A direction that is at hand, or computed where it is needed.

    Args:
        piece: its elements ``start`` to ``stop`` (left out) in the flattened weight ``name``; of
            float64 or float32, as `Gaussian`'s.
    """

    def __init__(self, piece: Callable[[str, int, int], Tensor]) -> None:
        self.piece = piece

    @torch.no_grad()
    def move(self, X: Mapping[str, Tensor], by: float) -> None:
        """See `FullRank`."""
        for name, x in X.items():
            for start in range(0, x.numel(), GROUP_ELEMENTS):
                stop = min(start + GROUP_ELEMENTS, x.numel())
                add(x.view(-1)[start:stop], self.piece(name, start, stop), by)
