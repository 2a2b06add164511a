"""The low-rank directions of LOZO and its variants: U is new every step, V is kept for nu steps.

For a matrix X_l in R^{m x n} the direction is U_l V_l^T with U_l in R^{m x r} and V_l in
R^{n x r}, both standard normal. V_l changes only when t mod nu == 0 ("lazy sampling", LOZO, arXiv
2410.07698, algorithm 1). A one-dimensional parameter gets a standard normal vector z. If a step
needs several directions, they share V, and U_1, U_2, ... are side by side.

``replicate_boundary_bug`` reproduces a bug of the published code, which draws everything from one
sequential random stream and rewinds that stream between perturbation and update. At a boundary (a
step that resamples V) the perturbation reads V before each U, but the update does not. From the
first matrix on, the update therefore reads other numbers than the perturbation did, and the step
goes in an unrelated direction (github.com/optsuite/LOZO, issue 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Literal

import torch
from torch import Tensor

from lozo_bench.engine.subspace import Subspace
from lozo_bench.engine.tensors import wide
from lozo_bench.errors import bad_value
from lozo_bench.optimizers.base import Weights, check_count, check_not_negative, check_positive
from lozo_bench.optimizers.beside import normal_beside
from lozo_bench.randomness.draws import Draws, Shapes


def check_options(lr: float, eps: float, rank: int, nu: int, weight_decay: float) -> None:
    """Check the ranges of the options that LOZO and its variants share.

    Raises:
        BadValueError: an option is out of range; the error names it.
    """
    check_not_negative("lr", lr)
    check_positive("eps", eps)
    check_count("rank", rank)
    check_count("nu", nu)
    check_not_negative("weight_decay", weight_decay)


def one_over_r(scale: Literal["paper", "reference"], rank: int) -> float:
    """Return the factor of a matrix's update: 1/r as in the paper, or 1 as in its code."""
    return 1 / rank if scale == "paper" else 1.0


class LowRankDirections:
    """Draws U, V and z of any step t; the steps need not be asked for in order.

    Args:
        X: the weights' tensors, by name.
        draws: source of all random numbers.
        rank: r.
        nu: number of steps for which V is kept.
        replicate_boundary_bug: on boundary steps, let `update_direction` differ from `draw`.

    Raises:
        BadValueError: ``rank`` exceeds the longest side of every matrix.
    """

    def __init__(
        self,
        X: Weights,
        draws: Draws,
        rank: int,
        nu: int,
        replicate_boundary_bug: bool = False,
    ) -> None:
        self.draws, self.nu = draws, nu
        self.replicate_boundary_bug = replicate_boundary_bug
        matrices = {name: x for name, x in X.items() if x.ndim >= 2}
        longest = max((max(x.shape[0], x[0].numel()) for x in matrices.values()), default=rank)
        if rank > longest:
            raise bad_value("rank", rank, f"at most {longest}, the longest side of any matrix here")
        self.U_shapes = {name: (x.shape[0], rank) for name, x in matrices.items()}
        self.V_shapes = {name: (x[0].numel(), rank) for name, x in matrices.items()}
        self.z_shapes = {name: (x.numel(), 1) for name, x in X.items() if x.ndim < 2}
        self.order = list(X)
        self._devices = {name: x.device for name, x in X.items()}
        self.dtype = _draw_dtype(X)
        self.period: int | None = None  # the period to which V belongs
        self.V: dict[str, Tensor] = {}

    def draw(self, t: int, count: int = 1) -> Subspace:
        """Return ``count`` directions for step t. V is the same object throughout a period."""
        if self.replicate_boundary_bug:
            return self._read_stream(t, with_V=t % self.nu == 0)
        self._keep_or_redraw(t)
        shapes = {**self.U_shapes, **self.z_shapes}
        each = {_numbered(n, i): shape for i in range(count) for n, shape in shapes.items()}
        if count > 1:
            self._devices |= {
                _numbered(n, i): self._devices[n] for i in range(count) for n in shapes
            }
        drawn = self._normal("U", t, each)

        def side_by_side(name: str) -> Tensor:
            columns = [drawn[_numbered(name, i)] for i in range(count)]
            return columns[0] if count == 1 else torch.cat(columns, dim=1)

        return Subspace(
            {name: side_by_side(name) for name in self.U_shapes},
            self.V,
            {name: side_by_side(name) for name in self.z_shapes},
        )

    def update_direction(self, t: int, P: Subspace) -> Subspace:
        """Return the direction of step t's update.

        It is P, the direction that was drawn for step t, unless the published code's boundary bug
        is on and t is a boundary step.
        """
        if self.replicate_boundary_bug and t % self.nu == 0:
            return self._read_stream(t, with_V=False)
        return P

    def state(self) -> dict[str, Tensor]:
        """Return nothing: every draw can be made again from its key."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Forget the current V, so that the next step draws that of its own period."""
        self.period, self.V = None, {}

    def _keep_or_redraw(self, t: int) -> None:
        period = t // self.nu
        if period != self.period:
            self.V = self._normal("V", period, self.V_shapes)
            self.period = period

    def _normal(self, role: str, step: int, shapes: Shapes) -> dict[str, Tensor]:
        return normal_beside(self.draws, role, step, shapes, self._devices, self.dtype)

    def _read_stream(self, t: int, with_V: bool) -> Subspace:
        """Read one parameter after another from the stream of step t, as the published code does.

        A matrix reads U, and V before it if ``with_V``; a vector reads z.
        """
        period = t // self.nu
        if with_V:
            self.V, self.period = {}, period
        elif self.period != period:
            self._read_stream(t - t % self.nu, with_V=True)
        shapes = {**self.U_shapes, **self.z_shapes}
        length = sum(map(prod, shapes.values())) + sum(map(prod, self.V_shapes.values()))
        first = next(iter(self._devices.values()), torch.device("cpu"))
        stream = self.draws.normal("stream", t, {"all": (length,)}, first, self.dtype)["all"]
        at, read = 0, {}
        for name in self.order:
            if with_V and name in self.V_shapes:
                V, at = _next_from(stream, at, self.V_shapes[name])
                self.V[name] = V.to(self._devices[name])
            own, at = _next_from(stream, at, shapes[name])
            read[name] = own.to(self._devices[name])
        return Subspace(
            {name: read[name] for name in self.U_shapes},
            self.V,
            {name: read[name] for name in self.z_shapes},
        )


def _numbered(name: str, i: int) -> str:
    """Return the stream of direction i; the first one has the name that a single one would have."""
    return f"{name}/{i}" if i else name


def _next_from(stream: Tensor, start: int, shape: tuple[int, ...]) -> tuple[Tensor, int]:
    """Return the tensor of this shape that begins at ``start``, and the index after its end."""
    end = start + prod(shape)
    return stream[start:end].view(shape), end


def _draw_dtype(X: Mapping[str, Tensor]) -> torch.dtype:
    """Return float64 for float64 weights, and else float32, also for half-precision weights."""
    return wide(next(iter(X.values())).dtype) if X else torch.float32
