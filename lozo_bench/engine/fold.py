"""Folding: what has been gathered beside the weights is written into them, and rounded.

In float32 a fold rounds by 6e-8 of a weight and that is all. In bfloat16 the numbers beside a
weight of 0.02 are 1.2e-4 apart, far more than most steps: rounding to the nearest loses steps that
are small against that for good. What can be done about it, at what price (`scripts/precision.py`
measures all of it):

    nearest     loses what is less than half the distance to the next number
    stochastic  up or down at random, right on average; its noise grows with the number of folds
    residual    keeps what rounding took away and adds it to the next fold: exact but for the last
                rounding, at the price of a second copy of the weights, in host memory

Whatever the rounding, fewer folds are better: see ``max_rank`` in `point.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.tensors import wide

Rounding = Literal["nearest", "stochastic", "residual"]

# Elements worked on at once: what is needed beside the weights is a few MB. A GPU gets more of them
# at a time, so that launching is not what takes the time.
_BLOCK, _GPU_BLOCK = 2**18, 2**22


class Folder:
    """Writes low-rank steps into weights.

    Args:
        rounding: what is done about numbers that half precision does not have.
        draws: source of the random bits of stochastic rounding.
    """

    def __init__(self, rounding: Rounding, draws: Draws) -> None:
        self.rounding, self.draws = rounding, draws
        self._folds: dict[str, int] = {}
        self._residual: dict[str, Tensor] = {}

    @torch.no_grad()
    def fold(self, name: str, W: Tensor, L: Tensor, V: Tensor, keep: float = 1.0) -> None:
        """W <- keep W + L V^T, in place and in blocks of rows.

        A step of nothing is no fold: it leaves every byte, where adding zeros would turn -0.0
        into 0.0. What is or becomes infinite or NaN stays so.

        Args:
            name: what W is called; the random bits and the residual are kept by name.
            W: weights of any float type, [m, n] or [m, ...], which counts as [m, everything else].
            L: [m, R], of any float type; computed with in float32 (float64 for float64 weights).
            V: [n, R], the same.
            keep: how much of W stays; the residual, which is less than a rounding, stays whole.

        Raises:
            RuntimeError: W has more than two dimensions and cannot be seen as a matrix in place.
        """
        if keep == 1 and not L.any():
            return
        if W.ndim > 2:
            W = W.view(len(W), -1)  # not flatten(), which copies what it cannot view
        L, V = L.to(wide(W.dtype)), V.to(wide(W.dtype))
        if W.dtype == L.dtype:
            W.addmm_(L, V.T, beta=keep)
            return
        number = self._folds.get(name, 0)
        self._folds[name] = number + 1
        for start, stop in _blocks(W):
            rows = W[start:stop]
            u = torch.addmm(rows.to(L.dtype), L[start:stop], V.T, beta=keep)
            if self.rounding == "stochastic":
                first, n = start * W.shape[1], W.shape[1]
                last = first + (stop - start) * n
                chance = self.draws.uniform_range("fold", number, name, first, last, W.device)
                rows.copy_(_up_or_down(u, chance.view_as(u), W.dtype))
            elif self.rounding == "residual":
                E = self._residual_of(name, W)[start:stop]
                u += E.to(W.device, u.dtype)
                rows.copy_(u)
                left = u - rows
                # A weight that has become infinite leaves infinity, which would be NaN next time.
                E.copy_(torch.where(left.isfinite(), left, torch.zeros_like(left)))
            else:
                rows.copy_(u)

    def state(self) -> dict[str, Tensor]:
        """How many folds there were, and the residuals: the folder's own, not copies of them."""
        folds = {f"folds/{name}": torch.tensor(count) for name, count in self._folds.items()}
        return folds | {f"residual/{name}": E for name, E in self._residual.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a `state`."""
        self._folds, self._residual = {}, {}
        for key, value in state.items():
            kind, _, name = key.partition("/")
            if kind == "folds":
                self._folds[name] = int(value)
            else:
                self._residual[name] = value.clone()

    def _residual_of(self, name: str, W: Tensor) -> Tensor:
        if name not in self._residual:
            # bfloat16 for float16 weights too, whose residuals float16 would have no bits for.
            self._residual[name] = torch.zeros(W.shape, dtype=torch.bfloat16)
        return self._residual[name]


def _up_or_down(u: Tensor, chance: Tensor, dtype: torch.dtype) -> Tensor:
    """One of the two numbers of ``dtype`` around u, on average u; a number of ``dtype`` stays.

    Counted in the bits of half-precision numbers, where one more is the next larger magnitude.
    """
    nearest = u.to(dtype)
    bits = nearest.view(torch.int16)
    bits = bits - (nearest.to(u.dtype).abs() > u.abs()).to(torch.int16)  # towards zero
    below = bits.view(dtype).to(u.dtype).abs()
    above = (bits + 1).view(dtype).to(u.dtype).abs()
    up = chance * (above - below) < u.abs() - below
    rounded = (bits + up.to(torch.int16)).view(dtype)
    return torch.where(nearest.isfinite(), rounded, nearest)


def _blocks(W: Tensor) -> Iterator[tuple[int, int]]:
    rows = max(1, (_BLOCK if W.device.type == "cpu" else _GPU_BLOCK) // max(1, W.shape[1]))
    for start in range(0, len(W), rows):
        yield start, min(start + rows, len(W))
