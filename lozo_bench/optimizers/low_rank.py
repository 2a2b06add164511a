"""The directions of LOZO and its kin: U fresh every step, V kept for a period of nu steps.

For a matrix X_l in R^{m x n} the direction is U_l V_l^T with U_l in R^{m x r}, V_l in R^{n x r},
both standard normal; V_l changes only when t mod nu == 0 ("lazy sampling", LOZO, arXiv 2410.07698,
algorithm 1). A one-dimensional parameter gets a plain normal z. Several directions of one step
share V and are U_1, U_2, ... side by side.

``replicate_boundary_bug`` redoes what the published code does. It draws everything from one
sequential stream that is rewound between perturbation and update; at a boundary the perturbation
reads V before each U and the update does not, so from the first matrix on, the update reads other
numbers than the perturbation did and the step goes in an unrelated direction
(github.com/optsuite/LOZO, issue 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Literal

import torch
from torch import Tensor

from lozo_bench.engine.draws import Draws, Shapes
from lozo_bench.engine.subspace import Subspace
from lozo_bench.engine.tensors import wide
from lozo_bench.errors import bad_value
from lozo_bench.optimizers.base import (
    Weights,
    check_count,
    check_not_negative,
    check_positive,
)


def check_options(lr: float, eps: float, rank: int, nu: int, weight_decay: float) -> None:
    """Check the ranges of what LOZO and its kin have in common.

    Raises:
        BadValueError: naming the option.
    """
    check_not_negative("lr", lr)
    check_positive("eps", eps)
    check_count("rank", rank)
    check_count("nu", nu)
    check_not_negative("weight_decay", weight_decay)


def one_over_r(scale: Literal["paper", "reference"], rank: int) -> float:
    """What a matrix's update is multiplied by: 1/r in the paper, 1 in the published code."""
    return 1 / rank if scale == "paper" else 1.0


class LowRankDirections:
    """Draws U, V and z for any step t; t = 0, 1, 2, ... in order is not required.

    Args:
        X: the weights' tensors, by name.
        draws: source of all draws.
        rank: r.
        nu: steps for which V is kept.
        replicate_boundary_bug: let `astray` differ from `draw` on boundary steps.
    """

    def __init__(
        self,
        X: Weights,
        draws: Draws,
        rank: int,
        nu: int,
        replicate_boundary_bug: bool = False,
    ) -> None:
        self.draws, self.nu, self.bug = draws, nu, replicate_boundary_bug
        matrices = {name: x for name, x in X.items() if x.ndim >= 2}
        largest = max((max(x.shape[0], x[0].numel()) for x in matrices.values()), default=rank)
        if rank > largest:
            raise bad_value("rank", rank, f"at most {largest}, the longest side of a matrix here")
        self.U_shapes = {name: (x.shape[0], rank) for name, x in matrices.items()}
        self.V_shapes = {name: (x[0].numel(), rank) for name, x in matrices.items()}
        self.z_shapes = {name: (x.numel(), 1) for name, x in X.items() if x.ndim < 2}
        self.order = list(X)
        self.device = next(iter(X.values())).device if X else torch.device("cpu")
        self.dtype = _draw_dtype(X)
        self.period: int | None = None
        self.V: dict[str, Tensor] = {}

    def draw(self, t: int, count: int = 1) -> Subspace:
        """The ``count`` directions of step t. V is the same object throughout a period."""
        if self.bug:
            return self._read(t, with_V=t % self.nu == 0)
        self._keep_or_draw_v(t)
        shapes = {**self.U_shapes, **self.z_shapes}
        many = {_numbered(n, i): shape for i in range(count) for n, shape in shapes.items()}
        fresh = self._normal("U", t, many)

        def all_of(name: str) -> Tensor:
            each = [fresh[_numbered(name, i)] for i in range(count)]
            return each[0] if count == 1 else torch.cat(each, dim=1)

        return Subspace(
            {name: all_of(name) for name in self.U_shapes},
            self.V,
            {name: all_of(name) for name in self.z_shapes},
        )

    def astray(self, t: int, P: Subspace) -> Subspace:
        """The direction of the update of step t: P, or what the published code takes for it."""
        return self._read(t, with_V=False) if self.bug and t % self.nu == 0 else P

    def state(self) -> dict[str, Tensor]:
        """Return nothing: every draw can be made again from its key."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Forget the current V, so that the next step draws that of its own period."""
        self.period, self.V = None, {}

    def _keep_or_draw_v(self, t: int) -> None:
        period = t // self.nu
        if period != self.period:
            self.V = self._normal("V", period, self.V_shapes)
            self.period = period

    def _normal(self, role: str, step: int, shapes: Shapes) -> dict[str, Tensor]:
        return self.draws.normal(role, step, shapes, self.device, self.dtype)

    def _read(self, t: int, with_V: bool) -> Subspace:
        """Read U (after V, if wanted) and z parameter by parameter from the stream of step t."""
        period = t // self.nu
        if with_V:
            self.V, self.period = {}, period
        elif self.period != period:
            self._read(t - t % self.nu, with_V=True)
        shapes = {**self.U_shapes, **self.z_shapes}
        length = sum(map(prod, shapes.values())) + sum(map(prod, self.V_shapes.values()))
        stream = self._normal("stream", t, {"all": (length,)})["all"]
        at, read = 0, {}
        for name in self.order:
            if with_V and name in self.V_shapes:
                self.V[name], at = _take(stream, at, self.V_shapes[name])
            read[name], at = _take(stream, at, shapes[name])
        return Subspace(
            {name: read[name] for name in self.U_shapes},
            self.V,
            {name: read[name] for name in self.z_shapes},
        )


def _numbered(name: str, i: int) -> str:
    """The stream of direction i: the first has the parameter's own name, as if it were alone."""
    return f"{name}/{i}" if i else name


def _take(stream: Tensor, at: int, shape: tuple[int, ...]) -> tuple[Tensor, int]:
    end = at + prod(shape)
    return stream[at:end].view(shape), end


def _draw_dtype(X: Mapping[str, Tensor]) -> torch.dtype:
    """float32, or float64 for float64 weights; half-precision weights are moved from float32."""
    return wide(next(iter(X.values())).dtype) if X else torch.float32
