"""A full-rank Gaussian direction z ~ N(0, I) that is added to weights and never stored.

The arithmetic is the same to the last bit on every device. z is the float64 normal of `Draws`. For
float64 weights, x + (by * z) is computed in float64. For all other weights, z and ``by`` are
rounded to float32, t = by * z and u = x + t are computed in float32 with one rounding each, and u
is rounded (to nearest, ties to even) to the dtype of the weight. The product and the sum are never
fused into one operation, as `Tensor.add_(z, alpha=by)` may do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from lozo_bench.engine.kernels import move_by_normals
from lozo_bench.engine.tensors import wide
from lozo_bench.errors import UserError
from lozo_bench.randomness.draws import Draws, key_words
from lozo_bench.randomness.kernels import run_on

GROUP_ELEMENTS = 1_000_000
_GPU_GROUP_ELEMENTS = 2**26  # with fewer, launching kernels would dominate the time
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

Piece = tuple[str, int, int]  # name, start, stop: elements start, ..., stop - 1
Group = tuple[torch.device, torch.dtype, list[Piece]]


class Gaussian:
    """The direction z of one step.

    On CUDA with Triton, one kernel draws z and adds it in a single pass over the weights. Otherwise
    z is drawn in groups of at most a million elements, or 2^26 on a GPU: small parameters together,
    because one large draw is faster than many small ones, and large parameters piece by piece. The
    last group stays in memory, so a model that fits into one group draws z once per step.

    Attributes:
        keeps_all: whether all groups stay in memory, 4 bytes for each parameter, so that z is drawn
            once and not for every move.

    Args:
        draws: source of z.
        step: the optimizer's step, a part of the key of z.
        role: the stream of ``draws``, a part of the key of z.
    """

    def __init__(self, draws: Draws, step: int, role: str = "z") -> None:
        self.draws, self.step, self.role = draws, step, role
        self.keeps_all = False
        self._drawn: dict[tuple[torch.device, torch.dtype, tuple[Piece, ...]], list[Tensor]] = {}

    @torch.no_grad()
    def move(self, X: Mapping[str, Tensor], by: float) -> None:
        """X <- X + by * z in place; the z of a weight depends on its name, not on the others in X.

        Args:
            X: weights by name; contiguous, float32, bfloat16, float16 or float64.
            by: factor of z.

        Raises:
            UserError: a weight is not contiguous or has another dtype. No weight has changed then.
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
        """Yield (name, start, z of a flat piece) until all elements of the weights X are covered.

        z is float64 for float64 weights and float32 otherwise. The caller must not write to it,
        because a later call may yield the same tensor again.
        """
        for group in _groups(X):
            for (name, start, _), z in zip(group[2], self._draw(group), strict=True):
                yield name, start, z

    def _in_one_pass(self, x: Tensor) -> bool:
        return run_on(x.device)

    def _draw(self, group: Group) -> list[Tensor]:
        """Return the flat z of each piece of the group, from memory if it is there."""
        device, dtype, pieces = group
        key = (device, dtype, tuple(pieces))
        if key not in self._drawn:
            if not self.keeps_all:
                self._drawn.clear()  # frees the old group before the next one is drawn
            self._drawn[key] = self._fresh(group)
        return self._drawn[key]

    def _fresh(self, group: Group) -> list[Tensor]:
        device, dtype, pieces = group
        if len(pieces) == 1:
            name, start, stop = pieces[0]
            z = self.draws.normal_range(self.role, self.step, name, start, stop, device, dtype)
            return [z]
        shapes = {name: (stop,) for name, _, stop in pieces}
        return list(self.draws.normal(self.role, self.step, shapes, device, dtype).values())


def group_elements(device: torch.device) -> int:
    """Return how many numbers of z are drawn at once on this device."""
    return _GPU_GROUP_ELEMENTS if device.type == "cuda" else GROUP_ELEMENTS


def _check(name: str, x: Tensor) -> None:
    if x.dtype not in _DTYPES:
        allowed = ", ".join(str(dtype) for dtype in _DTYPES)
        raise UserError(f"parameter {name}: its dtype is {x.dtype}; allowed: {allowed}")
    if not x.is_contiguous():
        raise UserError(
            f"parameter {name}: its memory is not contiguous (shape {tuple(x.shape)}, strides"
            f" {x.stride()}); only contiguous weights can be updated: call .contiguous() on it"
        )


def add(x: Tensor, z: Tensor, by: float) -> None:
    """Add by * z to x in place, rounded as the docstring of this file describes."""
    t = z * by  # torch first rounds the number ``by`` to the dtype of z
    if x.dtype == z.dtype:
        x.add_(t)
    else:
        x.copy_(t.add_(x))


def _groups(X: Mapping[str, Tensor]) -> Iterator[Group]:
    """Yield the weights in order, as groups of several whole weights or one piece of a large one.

    A group has at most `group_elements` elements, one device and one dtype of z.
    """
    kind: tuple[torch.device, torch.dtype] | None = None
    pieces: list[Piece] = []
    room = 0
    for name, x in X.items():
        limit, kind_of_x = group_elements(x.device), (x.device, wide(x.dtype))
        if kind is not None and pieces and (kind_of_x != kind or x.numel() > room):
            yield *kind, pieces
            pieces = []
        if not pieces:
            kind, room = kind_of_x, limit
        if x.numel() <= room:
            pieces.append((name, 0, x.numel()))
            room -= x.numel()
        else:
            for start in range(0, x.numel(), limit):
                yield *kind_of_x, [(name, start, min(start + limit, x.numel()))]
    if kind is not None and pieces:
        yield *kind, pieces
