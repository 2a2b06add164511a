"""The directions of LOZO and LOZO-M: U fresh every step, V kept for a period of nu steps.

For a matrix X_l in R^{m x n} the direction is U_l V_l^T with U_l in R^{m x r}, V_l in R^{n x r},
both standard normal; V_l changes only when t mod nu == 0 ("lazy sampling", LOZO, arXiv 2410.07698,
algorithm 1). A one-dimensional parameter gets a plain normal z.

``replicate_boundary_bug`` redoes what the published code does. It draws everything from one
sequential stream that is rewound between perturbation and update; at a boundary the perturbation
reads V before each U and the update does not, so from the first matrix on, the update reads other
numbers than the perturbation did and the step goes in an unrelated direction
(github.com/optsuite/LOZO, issue 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from lozo_bench.engine.draws import Draws, Shapes
from lozo_bench.engine.in_place import Direction, LowRank
from lozo_bench.errors import bad_value
from lozo_bench.optimizers.base import Weights

Factors = dict[str, Tensor]


class LowRankDirections:
    """Draws U, V and z for any step t; t = 0, 1, 2, ... in order is not required.

    Attributes after `draw`: ``U`` {matrix name: [m, r]}, ``V`` {matrix name: [n, r]} and
    ``z`` {vector name: [d]} of the perturbation, and ``U_update``, ``z_update`` of the update,
    the same tensors unless the published bug is being replicated.
    """

    def __init__(
        self, X: Weights, draws: Draws, rank: int, nu: int, replicate_boundary_bug: bool
    ) -> None:
        self.draws, self.nu, self.bug = draws, nu, replicate_boundary_bug
        matrices = {name: x for name, x in X.items() if x.ndim >= 2}
        largest = max((max(x.shape[0], x[0].numel()) for x in matrices.values()), default=rank)
        if rank > largest:
            raise bad_value("rank", rank, f"at most {largest}, the longest side of a matrix here")
        self.U_shapes = {name: (x.shape[0], rank) for name, x in matrices.items()}
        self.V_shapes = {name: (x[0].numel(), rank) for name, x in matrices.items()}
        self.z_shapes = {name: tuple(x.shape) for name, x in X.items() if x.ndim < 2}
        self.order = list(X)
        self.device = next(iter(X.values())).device if X else torch.device("cpu")
        self.dtype = _draw_dtype(X)
        self.period: int | None = None
        self.U: Factors = {}
        self.V: Factors = {}
        self.z: Factors = {}
        self.U_update: Factors = {}
        self.z_update: Factors = {}

    def draw(self, t: int) -> None:
        """Make the direction of step t the current one."""
        if self.bug:
            self._draw_sequentially(t)
            return
        period = t // self.nu
        if period != self.period:
            self.V = self._normal("V", period, self.V_shapes)
            self.period = period
        fresh = self._normal("U", t, {**self.U_shapes, **self.z_shapes})
        self.U = self.U_update = {name: fresh[name] for name in self.U_shapes}
        self.z = self.z_update = {name: fresh[name] for name in self.z_shapes}

    def perturbation(self) -> Direction:
        """U V^T for matrices, z for vectors."""
        return [*low_rank(self.U, self.V), *self.z.items()]

    def _normal(self, role: str, step: int, shapes: Shapes) -> Factors:
        return self.draws.normal(role, step, shapes, self.device, self.dtype)

    def _draw_sequentially(self, t: int) -> None:
        boundary = t % self.nu == 0
        start = t - t % self.nu
        if self.period != t // self.nu and not boundary:
            self._read(start, with_V=True)
        self.U, self.z = self._read(t, with_V=boundary)
        self.U_update, self.z_update = self._read(t, with_V=False)
        self.period = t // self.nu

    def _read(self, t: int, with_V: bool) -> tuple[Factors, Factors]:
        """Read U (after V, if wanted) and z parameter by parameter from the stream of step t."""
        shapes = {**self.U_shapes, **self.z_shapes}
        length = sum(map(prod, shapes.values())) + sum(map(prod, self.V_shapes.values()))
        stream = self._normal("stream", t, {"all": (length,)})["all"]
        at, read = 0, {}
        for name in self.order:
            if with_V and name in self.V_shapes:
                self.V[name], at = _take(stream, at, self.V_shapes[name])
            read[name], at = _take(stream, at, shapes[name])
        return (
            {name: read[name] for name in self.U_shapes},
            {name: read[name] for name in self.z_shapes},
        )


def low_rank(U: Mapping[str, Tensor], V: Mapping[str, Tensor]) -> Direction:
    """U V^T for each matrix in U."""
    return [(name, LowRank(U[name], V[name])) for name in U]


def _take(stream: Tensor, at: int, shape: tuple[int, ...]) -> tuple[Tensor, int]:
    end = at + prod(shape)
    return stream[at:end].view(shape), end


def _draw_dtype(X: Weights) -> torch.dtype:
    """float32, or float64 for float64 weights; half-precision weights are moved from float32."""
    return torch.promote_types(next(iter(X.values())).dtype, torch.float32) if X else torch.float32
