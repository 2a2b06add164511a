"""Products with versions of matrices that are formed first, which a CPU computes faster.

`prepared.py` adds a version's change to the product with the plain matrix. On a CPU it takes less
time to form the version itself, W + left^T right, and to multiply by it, if the matrix is small or
if the batch has many tokens. Small matrices are formed once for each forward pass. Larger ones are
formed when they are needed, one after the other in the same memory. The largest ones are not
formed, because little time would be saved for much memory.

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
# The largest matrix that is formed when it is needed has this many elements: 8 MiB in float32.
LARGEST = 2**21


def room_to_form(matrices: Mapping[str, Tensor], G: int) -> tuple[dict[str, Tensor], Tensor | None]:
    """Return memory for G versions of small matrices, by name, and for one version of the others.

    The second is None if no other matrix is formed.
    """
    formed, kept, scratch = {}, 0, 0
    for name, x in matrices.items():
        if x.numel() <= SMALL and kept + x.numel() <= KEPT:
            formed[name], kept = x.new_empty(G, *x.shape), kept + x.numel()
        elif x.numel() <= LARGEST:
            scratch = max(scratch, x.numel())
    first = next(iter(matrices.values()), None)
    return formed, None if first is None or not scratch else first.new_empty(scratch)


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
    return F.embedding(rows, formed.reshape(G * m, n), *args, **kwargs)


def is_worth_forming(change: PreparedMatrix, tokens: int) -> bool:
    """Return whether a product with this many rows of activations should form the matrix."""
    if change.scratch is None or torch.is_grad_enabled():  # a backward pass would need it later
        return False
    m, n = change.left.shape[-1], change.right.shape[-1]
    if m * n > len(change.scratch):
        return False
    return m * n <= SMALL or tokens * (m + n) >= 2 * m * n


def formed_now(W: Tensor, change: PreparedMatrix, keep: float) -> Tensor:
    """Return the only version of keep W [m, n], which is valid until the next one is formed."""
    assert change.scratch is not None
    version = change.scratch[: W.numel()].view(W.shape)
    return torch.addmm(W, change.left[0].T, change.right, beta=keep, out=version)
