"""A full-rank Gaussian direction z ~ N(0, I) that is added to weights and never stored.

The arithmetic, the same to the last bit on every device: z is the float64 normal of `Draws`. For
float64 weights, x + (by * z) is computed in float64. For all others z and ``by`` are rounded to
float32, t = by * z and u = x + t are computed in float32, each rounded, and u is rounded (to
nearest, ties to even) to the dtype of the weight. Product and sum are never fused into one
operation, which `Tensor.add_(z, alpha=by)` may do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from lozo_bench.engine.draws import Draws, key_words
from lozo_bench.engine.kernels import HAS_TRITON, move_by_normals
from lozo_bench.engine.tensors import wide
from lozo_bench.errors import UserError

GROUP_ELEMENTS = 1_000_000
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

Piece = tuple[str, int, int]  # name, first element, the element after the last
Group = tuple[torch.device, torch.dtype, list[Piece]]


class Gaussian:
    """The direction z of one step.

    On CUDA, z is made and added in one pass over the weights. Elsewhere (and on CUDA without
    Triton) it is drawn in groups: a million elements of small parameters together, because one
    large draw is faster than many small ones, and large parameters piece by piece. The group drawn
    last is kept, so that a model of one group is drawn once a step.

    Args:
        draws: source of z.
        step: which z: the optimizer's step.
        role: which stream of ``draws``.
    """

    def __init__(self, draws: Draws, step: int, role: str = "z") -> None:
        self.draws, self.step, self.role = draws, step, role
        self._last: tuple[Group, list[Tensor]] | None = None

    @torch.no_grad()
    def move(self, X: Mapping[str, Tensor], by: float) -> None:
        """X <- X + by * z in place; each tensor has the z of its name, whatever else moves.

        Args:
            X: weights by name; contiguous, float32, bfloat16, float16 or float64.
            by: how far.

        Raises:
            UserError: a weight is not contiguous or of another dtype; nothing has moved then.
        """
        for name, x in X.items():
            _check(name, x)
        in_pieces = {}
        for name, x in X.items():
            if self._in_one_pass(x):
                key = key_words(self.draws.seed, self.role, name)
                move_by_normals(x, by, key, self.step)
            else:
                in_pieces[name] = x
        for name, start, z in self.pieces(in_pieces):
            add(X[name].view(-1)[start : start + len(z)], z, by)

    def pieces(self, X: Mapping[str, Tensor]) -> Iterator[tuple[str, int, Tensor]]:
        """(name, first element, z of a flat piece) for weights like X, until all are covered.

        z is float64 for float64 weights and else float32; it may not be written to.
        """
        for group in _groups(X):
            for (name, start, _), z in zip(group[2], self._draw(group), strict=True):
                yield name, start, z

    def _in_one_pass(self, x: Tensor) -> bool:
        return x.is_cuda and HAS_TRITON

    def _draw(self, group: Group) -> list[Tensor]:
        """Flat z of each piece, in float64 for float64 weights and else in float32."""
        if self._last is None or self._last[0] != group:
            self._last = None  # freed before the next group is drawn
            self._last = group, self._fresh(group)
        return self._last[1]

    def _fresh(self, group: Group) -> list[Tensor]:
        device, dtype, pieces = group
        if len(pieces) == 1:
            name, start, stop = pieces[0]
            z = self.draws.normal_range(self.role, self.step, name, start, stop, device, dtype)
            return [z]
        shapes = {name: (stop,) for name, _, stop in pieces}
        return list(self.draws.normal(self.role, self.step, shapes, device, dtype).values())


def _check(name: str, x: Tensor) -> None:
    if x.dtype not in _DTYPES:
        allowed = ", ".join(str(dtype) for dtype in _DTYPES)
        raise UserError(f"parameter {name}: its dtype is {x.dtype}; allowed: {allowed}")
    if not x.is_contiguous():
        raise UserError(
            f"parameter {name}: its memory is not contiguous (shape {tuple(x.shape)}, strides"
            f" {x.stride()}); only contiguous weights can be moved: call .contiguous() on it"
        )


def add(x: Tensor, z: Tensor, by: float) -> None:
    """Add by * z to x in place, rounded as this file says."""
    t = z * by  # torch rounds a number to the dtype of the tensor first
    if x.dtype == z.dtype:
        x.add_(t)
    else:
        x.copy_(t.add_(x))


def _groups(X: Mapping[str, Tensor]) -> Iterator[Group]:
    """The weights in order: whole ones together, or one piece of a large one.

    No group holds more than the limit, two devices or two dtypes of z.
    """
    kind: tuple[torch.device, torch.dtype] | None = None
    pieces: list[Piece] = []
    room = GROUP_ELEMENTS
    for name, x in X.items():
        its_kind = x.device, wide(x.dtype)
        if kind is not None and pieces and (its_kind != kind or x.numel() > room):
            yield *kind, pieces
            pieces, room = [], GROUP_ELEMENTS
        kind = its_kind
        if x.numel() <= room:
            pieces.append((name, 0, x.numel()))
            room -= x.numel()
        else:
            for start in range(0, x.numel(), GROUP_ELEMENTS):
                yield *kind, [(name, start, min(start + GROUP_ELEMENTS, x.numel()))]
    if kind is not None and pieces:
        yield *kind, pieces
