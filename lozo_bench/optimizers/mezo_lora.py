"""MeZO on LoRA: full Gaussian directions in the small space of two adapter matrices.

Source: Malladi et al., arXiv 2305.17333 (MeZO (LoRA)); Hu et al., arXiv 2106.09685. A chosen matrix
W is W + (alpha / r) B A with B in R^{m x r} zero and A in R^{r x n} random at the start, and MeZO
runs on theta = (A, B):

    c = ( L(A + eps Z_A, B + eps Z_B) - L(A - eps Z_A, B - eps Z_B) ) / (2 eps)
    A <- A - lr c Z_A,   B <- B - lr c Z_B

Beside W, both candidates are places in the subspace of the factors [B Z_B] and [A Z_A]:

    (B + c Z_B)(A + c Z_A) - B A = [B Z_B] [[0, c], [c, c^2]] [A Z_A]

so that the weights are never written, and nothing of their size exists. Here A is held transposed,
[n, r], like any V.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import sqrt

import torch
from torch import Tensor

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.subspace import Places, Subspace, stacked
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


class MezoLora:
    """Zeroth-order SGD on low-rank adapters.

    Args:
        X: the weights; they stay as they are.
        draws: source of the first A, of Z_A and of Z_B.
        lr: learning rate.
        eps: how far the two losses are taken from theta.
        rank: r of the adapters.
        alpha: the adapters count alpha / r times.
        targets: a regular expression; matrices whose name it is found in get an adapter.
        weight_decay: adapters shrink by lr * weight_decay a step.
    """

    needs = Needs(directions="low_rank")

    def __init__(
        self,
        X: Engine,
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
        self.X, self.draws, self.lr, self.eps = X, draws, lr, eps
        self.scale, self.weight_decay = alpha / rank, weight_decay
        self.A, self.B = _adapters(_targets(X.X, targets), draws, rank)
        self.t = 0

    def step(self, score: Score) -> Report:
        """Two forwards and one update of A and B."""
        t, self.t = self.t, self.t + 1
        Z_A, Z_B = self._normal("Z_A", t, self.A), self._normal("Z_B", t, self.B)
        P = Subspace(_beside(self.B, Z_B), _beside(self.A, Z_A), {})
        loss_plus, loss_minus = score(
            P, stacked([self._off(P, +self.eps), self._off(P, -self.eps)])
        )
        c = (loss_plus - loss_minus) / (2 * self.eps)
        keep = 1 - self.lr * self.weight_decay
        self.A = {name: keep * A - self.lr * c * Z_A[name] for name, A in self.A.items()}
        self.B = {name: keep * B - self.lr * c * Z_B[name] for name, B in self.B.items()}
        BA = Subspace(self.B, self.A, {})
        r = BA.sizes[0]
        self.X.attach(BA, Places(self.scale * torch.eye(r).double(), torch.empty(0).double()))
        return Report((loss_plus + loss_minus) / 2, forwards=2, scalars={"projected_grad": c})

    def _off(self, P: Subspace, c: float) -> Places:
        """(B + c Z_B)(A + c Z_A) - B A as a place of P."""
        core = torch.tensor([[0.0, c], [c, c * c]], dtype=torch.float64)
        r = P.sizes[0] // 2
        C = torch.kron(core, torch.eye(r, dtype=torch.float64))
        return Places(self.scale * C, torch.empty(0, dtype=torch.float64))

    def _normal(self, role: str, t: int, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        first = next(iter(like.values()))
        shapes = {name: tuple(x.shape) for name, x in like.items()}
        return self.draws.normal(role, t, shapes, first.device, first.dtype)


def _targets(X: Mapping[str, Tensor], targets: str) -> dict[str, Tensor]:
    try:
        found = {name: x for name, x in X.items() if x.ndim == 2 and re.search(targets, name)}
    except re.error as error:
        raise bad_value("targets", targets, f"a regular expression ({error})") from error
    if X and not found:
        matrices = [name for name, x in X.items() if x.ndim == 2]
        raise bad_value("targets", targets, f"part of a matrix's name, such as {matrices[-1]}")
    return found


def _adapters(
    X: Mapping[str, Tensor], draws: Draws, r: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A [n, r] with the variance 1/(3n) of LoRA's uniform start, but normal; B [m, r] zero."""
    A, B = {}, {}
    for name, x in X.items():
        m, n = x.shape
        dtype = wide(x.dtype)
        A[name] = draws.normal("A", 0, {name: (n, r)}, x.device, dtype)[name] / sqrt(3 * n)
        B[name] = torch.zeros(m, r, device=x.device, dtype=dtype)
    return A, B


def _beside(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([x, right[name]], dim=1) for name, x in left.items()}
