"""Products with versions of matrices that are formed first, which a CPU computes faster.

`prepared.py` adds a version's change to the product with the plain matrix. On a CPU it takes less
time to form the version itself, W + left^T right, and to multiply by it, if the matrix is small or
if the batch has many tokens. Small matrices are formed once for each forward pass. Large matrices
are formed block by block when they are needed, so that there is never a second copy of one.

In half precision nothing is formed: rounding the sum would lose the change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lozo_bench.engine.prepared import PreparedMatrix

# Matrices of up to this many elements are small, and at most so many elements are kept in all.
SMALL, KEPT = 2**18, 2**20
# How many elements of a large matrix are formed at a time.
BLOCK = 2**21


def room_to_form(matrices: Mapping[str, Tensor], G: int) -> tuple[dict[str, Tensor], Tensor | None]:
    """Return memory for G versions of small matrices, by name, and for a block of the others.

    The second is None if all matrices are small.
    """
    formed, kept, block = {}, 0, 0
    for name, x in matrices.items():
        if x.numel() <= SMALL and kept + x.numel() <= KEPT:
            formed[name], kept = x.new_empty(G, *x.shape), kept + x.numel()
        else:
            block = max(block, x.shape[1], min(BLOCK, x.numel()))
    first = next(iter(matrices.values()), None)
    return formed, None if first is None or not block else first.new_empty(block)


def form(W: Tensor, change: PreparedMatrix, keep: float) -> None:
    """Write all versions of keep W [m, n] to ``change.formed``."""
    assert change.formed is not None
    for left, version in zip(change.left, change.formed, strict=True):
        torch.addmm(W, left.T, change.right, beta=keep, out=version)


def times_formed(x: Tensor, formed: Tensor, b: Tensor | None) -> Tensor:
    """Return y_g = x_g W_g + b_g.

    Args:
        x: activations of G equal groups of rows, [rows, ..., n].
        formed: the versions of the matrix, [G, n, m].
        b: the versions of the bias, [G, m], or one bias for all, [1, m], or None.
    """
    G, n, m = formed.shape
    groups = x.reshape(G, -1, n)
    y = groups @ formed if b is None else torch.baddbmm(b[:, None], groups, formed)
    return y.view(*x.shape[:-1], m)


def embedded(ids: Tensor, formed: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return rows of the versions [G, m, n] for ids of G equal groups of rows.

    The other arguments are those of `torch.nn.functional.embedding`.
    """
    G, m, n = formed.shape
    first = torch.arange(0, G * m, m, device=ids.device)[:, None]
    rows = (ids.reshape(G, -1) + first).view(ids.shape)
    return F.embedding(rows, formed.view(G * m, n), *args, **kwargs)


def is_worth_forming(change: PreparedMatrix, tokens: int) -> bool:
    """Return whether a product with this many rows of activations should form the matrix."""
    if change.scratch is None or torch.is_grad_enabled():  # a backward pass would need it later
        return False
    m, n = change.left.shape[-1], change.right.shape[-1]
    return m * n <= SMALL or tokens * (m + n) >= 2 * m * n


def linear_in_blocks(
    x: Tensor, W: Tensor, change: PreparedMatrix, b: Tensor | None, keep: float
) -> Tensor:
    """Return x (keep W + left^T right)^T + b, and form one block of rows of W after another.

    Args:
        x: activations [..., n].
        W: the matrix [m, n].
        change: its only version.
        b: the version of the bias [m], or None.
        keep: factor of W.
    """
    (m, n), left = W.shape, change.left[0].T
    assert change.scratch is not None
    x_rows = x.reshape(-1, n)
    y = x.new_empty(len(x_rows), m)
    blocks = -(-m // (len(change.scratch) // n))
    height = -(-m // blocks)
    for start in range(0, m, height):
        rows = slice(start, min(m, start + height))
        block = change.scratch[: (rows.stop - start) * n].view(-1, n)
        torch.addmm(W[rows], left[rows], change.right, beta=keep, out=block)
        if b is None:
            torch.mm(x_rows, block.T, out=y[:, rows])
        else:
            torch.addmm(b[rows], x_rows, block.T, out=y[:, rows])
    return y.view(*x.shape[:-1], m)
