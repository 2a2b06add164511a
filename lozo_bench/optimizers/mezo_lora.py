"""MeZO on LoRA: full Gaussian directions in the small space of two adapter matrices.

Source: Malladi et al., arXiv 2305.17333 (MeZO (LoRA)); Hu et al., "LoRA", arXiv 2106.09685. A
chosen matrix W in R^{m x n} becomes W + (alpha / r) B A. At the start, B in R^{m x r} is zero and A
in R^{r x n} is random. MeZO runs on (A, B), with Z_A and Z_B standard normal:

    (1)  c = ( L(A + eps Z_A, B + eps Z_B) - L(A - eps Z_A, B - eps Z_B) ) / (2 eps)
    (2)  A <- A - lr c Z_A,   B <- B - lr c Z_B

Relative to the adapted weights W + (alpha / r) B A, both candidates (a = +eps and a = -eps) lie in
the subspace spanned by the factors [B Z_B] and [A Z_A]:

    (3)  (B + a Z_B)(A + a Z_A) - B A  =  [B Z_B] [[0, a], [a, a^2]] [A Z_A]

An engine can therefore score them without writing W and without allocating anything of its size. A
is stored transposed, [n, r], like the V of the low-rank methods.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import sqrt

import torch
from torch import Tensor

from lozo_bench.engine.subspace import Coordinates, Subspace, stacked
from lozo_bench.engine.tensors import wide
from lozo_bench.errors import bad_value
from lozo_bench.optimizers.base import (
    Engine,
    Needs,
    Report,
    Score,
    check_count,
    check_not_negative,
    check_positive,
)
from lozo_bench.optimizers.beside import normal_beside
from lozo_bench.randomness.draws import Draws


class MezoLora:
    """Zeroth-order SGD on low-rank adapters.

    Args:
        engine: holds the weights X, which stay as they are, and the adapters beside them.
        draws: source of the initial A, of Z_A and of Z_B.
        lr: learning rate.
        eps: distance from (A, B) at which the two losses are taken.
        rank: r of the adapters.
        alpha: the adapters are multiplied by alpha / r.
        targets: a regular expression; a matrix gets an adapter if its name contains a match.
        weight_decay: each step multiplies A and B by 1 - lr * weight_decay.
    """

    needs = Needs(directions="low_rank")

    def __init__(
        self,
        engine: Engine,
        draws: Draws,
        *,
        lr: float,
        eps: float,
        rank: int,
        alpha: float,
        targets: str,
        weight_decay: float = 0.0,
    ) -> None:
        check_not_negative("lr", lr)
        check_positive("eps", eps)
        check_count("rank", rank)
        check_positive("alpha", alpha)
        check_not_negative("weight_decay", weight_decay)
        self.engine, self.draws, self.lr, self.eps = engine, draws, lr, eps
        self.scale, self.weight_decay = alpha / rank, weight_decay
        self.A, self.B = _initial_adapters(_targets(engine.X, targets), draws, rank)
        self.t = 0

    def step(self, score: Score) -> Report:
        """Make one step: two forward passes and one update of A and B."""
        t, self.t = self.t, self.t + 1
        Z_A, Z_B = self._normal("Z_A", t, self.A), self._normal("Z_B", t, self.B)
        P = Subspace(_side_by_side(self.B, Z_B), _side_by_side(self.A, Z_A), {})
        candidates = [self._candidate(P, +self.eps), self._candidate(P, -self.eps)]
        loss_plus, loss_minus = score(P, stacked(candidates))
        c = (loss_plus - loss_minus) / (2 * self.eps)  # (1)
        keep = 1 - self.lr * self.weight_decay
        self.A = {name: keep * A - self.lr * c * Z_A[name] for name, A in self.A.items()}  # (2)
        self.B = {name: keep * B - self.lr * c * Z_B[name] for name, B in self.B.items()}
        BA = Subspace(self.B, self.A, {})
        r = BA.sizes[0]
        self.engine.set_adapter(
            BA, Coordinates(self.scale * torch.eye(r).double(), torch.empty(0).double())
        )
        return Report((loss_plus + loss_minus) / 2, forwards=2, scalars={"projected_grad": c})

    def _candidate(self, P: Subspace, a: float) -> Coordinates:
        """Return the coordinates in P of the adapters moved by ``a``, equation (3)."""
        core = torch.tensor([[0.0, a], [a, a * a]], dtype=torch.float64)
        r = P.sizes[0] // 2
        C = torch.kron(core, torch.eye(r, dtype=torch.float64))
        return Coordinates(self.scale * C, torch.empty(0, dtype=torch.float64))

    def _normal(self, role: str, t: int, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        first = next(iter(like.values()))
        shapes = {name: tuple(x.shape) for name, x in like.items()}
        devices = {name: x.device for name, x in like.items()}
        return normal_beside(self.draws, role, t, shapes, devices, first.dtype)


def _targets(X: Mapping[str, Tensor], targets: str) -> dict[str, Tensor]:
    """Return the matrices that get an adapter.

    Raises:
        BadValueError: ``targets`` is no regular expression, or matches no matrix.
    """
    try:
        found = {name: x for name, x in X.items() if x.ndim == 2 and re.search(targets, name)}
    except re.error as error:
        raise bad_value("targets", targets, f"a regular expression ({error})") from error
    if X and not found:
        matrices = [name for name, x in X.items() if x.ndim == 2]
        raise bad_value("targets", targets, f"part of a matrix's name, such as {matrices[-1]}")
    return found


def _initial_adapters(
    X: Mapping[str, Tensor], draws: Draws, r: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the initial A [n, r] and B [m, r] of each matrix.

    A is normal with the variance 1/(3n), which is that of LoRA's uniform initialization; B is zero.
    """
    A, B = {}, {}
    for name, x in X.items():
        m, n = x.shape
        dtype = wide(x.dtype)
        A[name] = draws.normal("A", 0, {name: (n, r)}, x.device, dtype)[name] / sqrt(3 * n)
        B[name] = torch.zeros(m, r, device=x.device, dtype=dtype)
    return A, B


def _side_by_side(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([x, right[name]], dim=1) for name, x in left.items()}
