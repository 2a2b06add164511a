"""Folding: adding accumulated low-rank updates to the weights, which rounds them.

A fold into float32 weights has a relative rounding error of 6e-8, which is negligible. Near a
weight of 0.02, neighboring bfloat16 numbers are 1.2e-4 apart, which is much more than most updates;
rounding to nearest loses such small updates permanently. Three kinds of rounding are available
(`scripts/precision.py` measures all of them):

    nearest     loses every change that is smaller than half the distance to the next number
    stochastic  rounds up or down at random and is right on average; its noise grows with the number
                of folds
    residual    stores the rounding error and adds it to the next fold, so that only the last
                rounding remains; needs a second copy of the weights in host memory

With every kind of rounding, fewer folds are better: see ``max_rank`` in `pending.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from lozo_bench.engine.fold_kernel import fold_in_one_pass, has_fold_kernel
from lozo_bench.engine.stored import Kept, Stored
from lozo_bench.engine.tensors import wide
from lozo_bench.randomness.draws import Draws, key_words

Rounding = Literal["nearest", "stochastic", "residual"]

# The number of elements that are folded at once, so that a fold needs only a few MB of temporary
# memory. A GPU folds more at once, so that launching kernels does not dominate the time.
_BLOCK, _GPU_BLOCK = 2**18, 2**22


class Folder:
    """Adds low-rank updates to weights and rounds the result.

    Args:
        rounding: how results are rounded to half precision; float32 and float64 weights ignore it.
        draws: source of the random bits of stochastic rounding.
    """

    def __init__(self, rounding: Rounding, draws: Draws) -> None:
        self.rounding, self.draws = rounding, draws
        self._folds: dict[str, int] = {}
        self._residual: dict[str, Tensor] = {}

    @torch.no_grad()
    def fold(self, name: str, W: Tensor, L: Tensor, V: Tensor, keep: float = 1.0) -> None:
        """W <- keep W + L V^T, in place and in blocks of rows; on a GPU by one kernel, if it can.

        If L is zero and ``keep`` is 1, W keeps every byte; adding zeros would turn -0.0 into 0.0.
        Elements of W that are or become infinite or NaN stay so.

        Args:
            name: name of W; it keys the random bits and the stored residual.
            W: weights of any floating-point dtype, [m, n]; a tensor [m, ...] of more dimensions is
                treated as [m, product of the others].
            L: [m, R], any floating-point dtype; converted to float32 (float64 for float64 weights).
            V: [n, R], likewise.
            keep: factor of W (weight decay). The residual is not scaled: it is smaller than one
                rounding error.

        Raises:
            RuntimeError: W has more than two dimensions and its memory cannot be viewed as a
                matrix.
        """
        if keep == 1 and not L.any():
            return
        if W.ndim > 2:
            W = W.view(len(W), -1)  # flatten() would silently copy a W that it cannot view
        if W.dtype == wide(W.dtype):
            W.addmm_(L.to(W.dtype), V.to(W.dtype).T, beta=keep)
            return
        number = self._folds.get(name, 0)
        self._folds[name] = number + 1
        if self.rounding != "residual" and has_fold_kernel(W):
            key = key_words(self.draws.seed, "fold", name)
            stream = (key, number) if self.rounding == "stochastic" else None
            fold_in_one_pass(W, L, V, keep, stream)
            return
        L, V = L.float(), V.float()
        for start, stop in _blocks(W):
            rows = W[start:stop]
            u = torch.addmm(rows.to(L.dtype), L[start:stop], V.T, beta=keep)
            if self.rounding == "stochastic":
                first, n = start * W.shape[1], W.shape[1]
                last = first + (stop - start) * n
                chance = self.draws.uniform_range("fold", number, name, first, last, W.device)
                rows.copy_(_round_stochastically(u, chance.view_as(u), W.dtype))
            elif self.rounding == "residual":
                E = self._residual_of(name, W)[start:stop]
                u += E.to(W.device, u.dtype)
                rows.copy_(u)
                left = u - rows
                # For an infinite weight the error is infinite or NaN; adding it to the next fold
                # would make the weight NaN.
                E.copy_(torch.where(left.isfinite(), left, torch.zeros_like(left)))
            else:
                rows.copy_(u)

    def state(self) -> dict[str, Tensor]:
        """Return the number of folds and the residual of each weight; tensors are not copied."""
        folds = {f"folds/{name}": torch.tensor(count) for name, count in self._folds.items()}
        return folds | {f"residual/{name}": E for name, E in self._residual.items()}

    def load_state(self, state: Mapping[str, Kept]) -> None:
        """Restore a state that `state` returned."""
        self._folds, self._residual = {}, {}
        for key, value in state.items():
            kind, _, name = key.partition("/")
            if isinstance(value, Stored):
                self._residual[name] = value.load()
            elif kind == "folds":
                self._folds[name] = int(value)
            else:
                self._residual[name] = value.clone()

    def _residual_of(self, name: str, W: Tensor) -> Tensor:
        if name not in self._residual:
            # float16 weights have a bfloat16 residual too: it would underflow in float16.
            self._residual[name] = torch.zeros(W.shape, dtype=torch.bfloat16)
        return self._residual[name]


def _round_stochastically(u: Tensor, chance: Tensor, dtype: torch.dtype) -> Tensor:
    """Round u to one of the two neighboring numbers of ``dtype``, chosen so that the mean is u.

    A u that ``dtype`` can represent stays as it is. The neighbors are found by adding 1 to the bits
    of a half-precision number, which gives the number of the next larger magnitude.

    Args:
        u: values to round, float32.
        chance: uniform random numbers in [0, 1), shaped like u.
        dtype: bfloat16 or float16.
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
