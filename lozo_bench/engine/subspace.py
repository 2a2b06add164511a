"""Low-rank subspaces of the weights, and the coordinates of candidates and updates in them.

A subspace gives each matrix W in R^{m x n} two low-rank factors U [m, a] and V [n, b], and each
vector p in R^d columns z [d, e]. The coordinates of a point in it are a small core C [a, b] and
coefficients s [e], which all weights share:

    W + U C V^T        p + z s

LOZO's two candidates have the coordinates C = +eps I, s = +eps and C = -eps I, s = -eps. The
factors of several directions are columns side by side; C selects and weights them.
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
    """A subspace: factors ``U`` [m, a], ``V`` [n, b] of matrices and ``z`` [d, e] of vectors.

    All three map names of weights to tensors. A weight of more than two dimensions is treated as
    the matrix [size(0), product of the other sizes].
    """

    U: Factors
    V: Factors
    z: Factors

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(a, b, e), the numbers of columns of U, V and z; 0 for an empty mapping."""
        return _columns(self.U), _columns(self.V), _columns(self.z)


# The subspace whose only point is 0: a candidate in it is the weights themselves.
NOWHERE = Subspace({}, {}, {})


@dataclass(frozen=True, slots=True, eq=False)
class Coordinates:
    """Coordinates in a subspace: ``C`` [..., a, b] and ``s`` [..., e], float64 on the CPU.

    There are no leading dimensions for a single point, [K] for K candidates, and [K, B] for K
    candidates that differ between the B examples of a batch.
    """

    C: Tensor
    s: Tensor

    def __sub__(self, other: Coordinates) -> Coordinates:
        return Coordinates(self.C - other.C, self.s - other.s)

    def __mul__(self, factor: float) -> Coordinates:
        return Coordinates(self.C * factor, self.s * factor)

    def __getitem__(self, index: int | slice | list[int] | tuple[Any, ...]) -> Coordinates:
        return Coordinates(self.C[index], self.s[index])

    def __len__(self) -> int:
        return len(self.s)

    def flat(self) -> Coordinates:
        """Return the same coordinates with a single leading dimension."""
        return Coordinates(self.C.flatten(0, -3), self.s.flatten(0, -2))


def along(P: Subspace, matrices: float, vectors: float | None = None) -> Coordinates:
    """Return the coordinates of c U V^T and c z for one direction, that is a = b.

    Args:
        P: the subspace of the direction.
        matrices: the factor c of U V^T.
        vectors: the factor c of z; None: the same as ``matrices``.
    """
    a, _, e = P.sizes
    vectors = matrices if vectors is None else vectors
    return Coordinates(
        matrices * torch.eye(a, dtype=torch.float64), torch.full((e,), vectors, dtype=torch.float64)
    )


def combination(
    P: Subspace,
    matrices: Sequence[float] | Tensor,
    vectors: Sequence[float] | Tensor | None = None,
) -> Coordinates:
    """Return the coordinates of sum_i c_i U_i V_i^T and sum_i c_i z_i for q directions.

    U consists of q blocks U_1, ..., U_q with a/q columns each, side by side. V consists of q blocks
    as well, or of one block that all directions share.

    Args:
        P: the subspace of the q directions.
        matrices: the factors c_i of the matrices, a sequence or a tensor [..., q].
        vectors: the factors c_i of z; None: the same as ``matrices``.
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
    return Coordinates(C, s if e else s[..., :0])


def stacked(coordinates: Sequence[Coordinates]) -> Coordinates:
    """Stack the coordinates of K single points, which gives leading dimensions [K]."""
    return Coordinates(
        torch.stack([p.C for p in coordinates]), torch.stack([p.s for p in coordinates])
    )


def _columns(factors: Factors) -> int:
    return next(iter(factors.values())).shape[1] if factors else 0
