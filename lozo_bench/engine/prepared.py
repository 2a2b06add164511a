"""Versions of weights in the form in which a model multiplies by them, and their products.

The factors of a matrix's versions are rounded to the dtype of the activations and lie side by side,
so that a linear layer needs one small product beside its own and one that is added to the result:

    y_g = x W^T + b + (x right^T + e) left_g

The first of the k columns is the bias's: its row of ``right`` is zero, e is one there, and its row
of ``left`` is what version g adds to the bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lozo_bench.engine.tensors import wide

# On a CPU, adding up to this many columns one by one is faster than a matrix product.
_FEW_COLUMNS = 8


@dataclass(frozen=True, slots=True, eq=False)
class PreparedMatrix:
    """The versions of a matrix W [m, n]: W + left_g^T right.

    Attributes:
        right: [k, n], in the dtype of W.
        left: [G, k, m], likewise.
        e: [k]; not zero in the column of the bias only.
        bias: the change of the bias whose versions are in the first row of ``left``; None if there
            is none.
        formed: the versions themselves, [G, m, n]; None if they are not formed (see `formed.py`).
        scratch: memory in which matrices are formed one after the other; None if none is formed.
    """

    right: Tensor
    left: Tensor
    e: Tensor
    bias: PreparedVector | None
    formed: Tensor | None = None
    scratch: Tensor | None = None

    def value(self, W: Tensor, g: int, keep: float) -> Tensor:
        """Return version g of keep W, in the dtype of W."""
        if self.formed is not None:
            return self.formed[g]
        exact = wide(W.dtype)
        product = self.left[g].T.to(exact) @ self.right.to(exact)
        return (W * keep + product.view(W.shape)).to(W.dtype)

    def rows(self, index: Tensor) -> PreparedMatrix:
        """Return the same versions of the rows W[index]."""
        formed = None if self.formed is None else self.formed[:, index]
        return PreparedMatrix(self.right, self.left[:, :, index], self.e, None, formed)


@dataclass(frozen=True, slots=True, eq=False)
class PreparedVector:
    """The versions of a vector p [d], float32 or float64.

    Attributes:
        change: what is added to p, [G, d].
        values: the versions, [G, d].
    """

    change: Tensor
    values: Tensor


def add_linear(y: Tensor, x: Tensor, change: PreparedMatrix, bias: PreparedVector | None) -> None:
    """Add to y [..., m] = x W^T + b what the versions of W and of the bias change."""
    left, right = change.left, change.right
    if bias is None and x.device.type == "cpu":  # the bias's column adds nothing
        left, right = left[:, 1:], right[1:]
    if bias is not None and bias is not change.bias:
        first = bias.change[:, None] / change.e[0]
        left = torch.cat([first.to(left.dtype), left[:, 1:]], dim=1)
    xv = F.linear(x.reshape(-1, x.shape[-1]), right, None if bias is None else change.e)
    add_product(y, xv.view(len(left), -1, xv.shape[-1]), left)


def add_transposed(
    y: Tensor, x: Tensor, change: PreparedMatrix, bias: PreparedVector | None
) -> None:
    """Add to y [..., n] = x W + b what the versions of W [m, n] and of the bias change."""
    G = len(change.left)
    xu = torch.bmm(x.reshape(G, -1, x.shape[-1]), change.left.mT)
    right = change.right.expand(G, -1, -1)
    if bias is not None:
        xu[..., 0] = 1
        right = torch.cat([bias.change[:, None].to(right.dtype), right[:, 1:]], dim=1)
    add_product(y, xu, right)


def add_embedding(y: Tensor, ids: Tensor, change: PreparedMatrix) -> None:
    """Add to the embeddings y [..., n] of ``ids`` what the versions of W change."""
    G, k, _ = change.left.shape
    ids = ids.reshape(G, 1, -1)
    if G == 1:
        columns = change.left.index_select(2, ids.view(-1))
    else:
        columns = change.left.gather(2, ids.expand(G, k, -1))
    add_product(y, columns.mT, change.right.expand(G, -1, -1))


def add_product(y: Tensor, right: Tensor, left: Tensor) -> None:
    """y_g += right_g left_g in place; y has G N rows of m, right [G, N, k], left [G, k, m]."""
    groups = y.view(len(right), -1, y.shape[-1])
    k = right.shape[2]
    if y.device.type == "cpu" and k <= _FEW_COLUMNS and y.dtype == wide(y.dtype):
        for i in range(k):
            groups.addcmul_(right[:, :, i, None], left[:, i, None])
    elif len(right) == 1:
        groups[0].addmm_(right[0], left[0])
    else:
        groups.baddbmm_(right, left)
