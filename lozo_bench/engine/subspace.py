"""Thin subspaces of weight space, and places in them: the one form every candidate takes.

A subspace gives each matrix W in R^{m x n} two thin factors U [m, a] and V [n, b], and each vector
p in R^d columns z [d, e]. A place in it is a small core C [a, b] and coefficients s [e], the same
for every weight:

    W + U C V^T        p + z s

LOZO's two places are C = +eps I and C = -eps I with s = +eps, -eps. Several directions at once are
columns side by side, and C says which of them are meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Factors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Subspace:
    """Factors by weight name: ``U`` [m, a] and ``V`` [n, b] of matrices, ``z`` [d, e] of vectors.

    A tensor of more than two dimensions counts as the matrix [size(0), everything else].
    """

    U: Factors
    V: Factors
    z: Factors

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(a, b, e), the numbers of columns of U, V and z; 0 where there is none."""
        return _columns(self.U), _columns(self.V), _columns(self.z)


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Places in a subspace: ``C`` [..., a, b] and ``s`` [..., e], float64 on the CPU.

    The leading dimensions say how many: none for a single place, [K] for K candidates, [K, B] where
    each of the B examples of a batch has places of its own.
    """

    C: Tensor
    s: Tensor

    def __sub__(self, other: Places) -> Places:
        return Places(self.C - other.C, self.s - other.s)

    def __getitem__(self, index: int | slice | list[int] | tuple[Any, ...]) -> Places:
        return Places(self.C[index], self.s[index])

    def __len__(self) -> int:
        return len(self.s)

    def flat(self) -> Places:
        """The same places with a single leading dimension."""
        return Places(self.C.flatten(0, -3), self.s.flatten(0, -2))


def along(P: Subspace, matrices: float, vectors: float | None = None) -> Places:
    """The place c U V^T, c z of one direction (a = b); ``vectors`` is c for z where it differs."""
    a, _, e = P.sizes
    vectors = matrices if vectors is None else vectors
    return Places(
        matrices * torch.eye(a, dtype=torch.float64), torch.full((e,), vectors, dtype=torch.float64)
    )


def among(
    P: Subspace,
    matrices: Sequence[float] | Tensor,
    vectors: Sequence[float] | Tensor | None = None,
) -> Places:
    """The place sum_i c_i U_i V_i^T, sum_i c_i z_i among q directions side by side.

    U holds the q blocks U_1 ... U_q of a/q columns. V holds as many, or one block for them all.

    Args:
        P: the subspace of q directions.
        matrices: the c_i, as a sequence or a tensor [..., q].
        vectors: the c_i of z where they differ.
    """
    a, b, e = P.sizes
    c = torch.as_tensor(matrices, dtype=torch.float64)
    s = c if vectors is None else torch.as_tensor(vectors, dtype=torch.float64)
    q = c.shape[-1]
    width = a // q
    blocks = c.repeat_interleave(width, dim=-1)
    if b == a:
        C = torch.diag_embed(blocks)
    else:
        C = blocks.unsqueeze(-1) * torch.eye(b, dtype=torch.float64).repeat(q, 1)
    return Places(C, s if e else s[..., :0])


def stacked(places: Sequence[Places]) -> Places:
    """Single places as [K] places."""
    return Places(torch.stack([p.C for p in places]), torch.stack([p.s for p in places]))


def _columns(factors: Factors) -> int:
    return next(iter(factors.values())).shape[1] if factors else 0
