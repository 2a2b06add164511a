"""MeZO: zeroth-order SGD along full Gaussian directions that are never stored.

Source: Malladi et al., "Fine-Tuning Language Models with Just Forward Passes", arXiv 2305.17333,
algorithm 1. At step t, with z ~ N(0, I) drawn again whenever it is needed:

    c = ( L(theta + eps z; B) - L(theta - eps z; B) ) / (2 eps)
    theta <- theta - lr c z

Memory beyond the weights is one group of parameters' z: the largest tensor, or a million elements
of small ones drawn together because one large draw is faster than many small ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.in_place import decay, move
from lozo_bench.optimizers.base import Report, Score, Weights, check_not_negative, check_positive

_GROUP_ELEMENTS = 1_000_000


class Mezo:
    """Full-rank zeroth-order SGD.

    Args:
        X: the weights theta, by name; moved in place.
        draws: source of z.
        lr: learning rate.
        eps: how far the two losses are taken from X.
        weight_decay: matrices shrink by lr * weight_decay a step.
    """

    def __init__(
        self, X: Weights, draws: Draws, *, lr: float, eps: float, weight_decay: float = 0.0
    ) -> None:
        check_not_negative("lr", lr)
        check_positive("eps", eps)
        check_not_negative("weight_decay", weight_decay)
        self.X, self.draws = X, draws
        self.lr, self.eps, self.weight_decay = lr, eps, weight_decay
        self.t = 0

    def step(self, score: Score) -> Report:
        """Two forwards and one update."""
        z = _Gaussian(self.X, self.draws, self.t)
        loss_plus, loss_minus = score(z, (+self.eps, -self.eps))
        c = (loss_plus - loss_minus) / (2 * self.eps)
        decay(self.X, self.lr * self.weight_decay)
        move(self.X, z, -self.lr * c)
        self.t += 1
        return Report((loss_plus + loss_minus) / 2, forwards=2, scalars={"projected_grad": c})


class _Gaussian:
    """The direction z of step t, drawn anew each time it is iterated.

    The group drawn last is kept, so that a model of one group is drawn once a step.
    """

    def __init__(self, X: Weights, draws: Draws, t: int) -> None:
        self.X, self.draws, self.t = X, draws, t
        self.last_group: list[str] = []
        self.last_z: dict[str, Tensor] = {}

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for group in _groups(self.X):
            if list(group) != self.last_group:
                self.last_z = {}  # freed before the next group is drawn
                self.last_group, self.last_z = list(group), self._draw(group)
            yield from self.last_z.items()

    def _draw(self, group: Weights) -> dict[str, Tensor]:
        first = next(iter(group.values()))
        shapes = {name: tuple(x.shape) for name, x in group.items()}
        dtype = torch.promote_types(first.dtype, torch.float32)
        return self.draws.normal("z", self.t, shapes, first.device, dtype)


def _groups(X: Weights) -> Iterator[dict[str, Tensor]]:
    """Parameters in order, as many together as stay within the limit and on one device."""
    group: dict[str, Tensor] = {}
    size = 0
    for name, x in X.items():
        device = next(iter(group.values())).device if group else x.device
        if group and (size + x.numel() > _GROUP_ELEMENTS or x.device != device):
            yield group
            group, size = {}, 0
        group[name] = x
        size += x.numel()
    if group:
        yield group
