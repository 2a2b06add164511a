"""Where the weights are: what is in the model, and what has been gathered but not yet written.

    W + sum_j A_j V_j^T + A V^T + U C V^T     closed periods j, the open one, and what is attached
    p + a                                     vectors

A and a are float32 (float64 for float64 weights). A step along the open period's V only changes A,
which is exact where the same step into half-precision weights would be lost or drowned in rounding.
When V changes, the period closes; once the closed ones have more than ``max_rank`` columns they are
folded into the weights, all at once, because each fold rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lozo_bench.engine.fold import Folder
from lozo_bench.engine.subspace import Coordinates, Factors, Subspace
from lozo_bench.engine.tensors import DeviceCache, is_half, on_cpu, wide
from lozo_bench.engine.terms import Extras, LowRankTerm, load_term, save_term, with_prefix


class PendingUpdate:
    """The weights' value.

    Args:
        X: the weights by name; written to by folding only.
        folder: folds.
        max_rank: columns of closed periods that are kept unwritten; 0 writes each as it closes.
        extras: further tensors that the model's function depends on.
    """

    def __init__(
        self,
        X: Mapping[str, Tensor],
        folder: Folder,
        max_rank: int,
        extras: Extras | None = None,
    ) -> None:
        self.X, self.folder, self.max_rank = X, folder, max_rank
        self.extras = extras or Extras()
        self.closed: list[LowRankTerm] = []
        self.open: LowRankTerm | None = None
        self.attached: LowRankTerm | None = None
        self.a = {
            name: torch.zeros_like(x, dtype=wide(x.dtype)) for name, x in X.items() if x.ndim < 2
        }
        self.moved: set[str] = set()  # vectors whose a is not zero
        self._loaded = False
        self.keep = 1.0

    @property
    def terms(self) -> list[LowRankTerm]:
        """All thin terms."""
        return [*self.closed, *filter(None, (self.open, self.attached))]

    @torch.no_grad()
    def move(self, P: Subspace, to: Coordinates) -> None:
        """Go to a place of P."""
        if P.U:
            self.know_again(P)
            if self.open is None or self.open.V is not P.V:
                self._close()
                self.open = self._new_period(P)
            sent = DeviceCache()
            for name, U in P.U.items():
                A = self.open.U[name]
                A.addmm_(U.to(A), sent(("C",), lambda: to.C, A))
        for name, z in P.z.items():
            a = self.a[name]
            # By numbers and not by a product with s, which would have to be on the device.
            for column, c in enumerate(to.s.tolist()):
                a.add_(z[:, column].view(a.shape).to(a), alpha=c)
        self.moved |= set(P.z)

    def know_again(self, P: Subspace) -> None:
        """After `load_state` the open period's V is a copy: a P with an equal V goes on in it."""
        if self._loaded and self.open is not None and P.U:
            mine = self.open.V
            if mine.keys() == P.V.keys() and all(torch.equal(mine[n], P.V[n]) for n in mine):
                self.open = LowRankTerm(self.open.U, P.V, self.open.C)
            self._loaded = False

    def attach(self, P: Subspace, at: Coordinates) -> None:
        """Replace the adapter."""
        self.attached = LowRankTerm(P.U, P.V, at.C)

    @torch.no_grad()
    def decay(self, rate: float) -> None:
        """Shrink matrices, written or not. W itself shrinks when it is next folded."""
        if rate:
            self.keep *= 1 - rate
            for term in (*self.closed, *filter(None, [self.open])):
                for A in term.U.values():
                    A.mul_(1 - rate)

    @torch.no_grad()
    def settle(self) -> None:
        """Write everything into X except what is attached; what rounding leaves of a is kept."""
        self._close(fold=True)
        for name, a in self.a.items():
            x = self.X[name]
            wanted = x.to(a.dtype) + a
            x.copy_(wanted)
            a.copy_(wanted - x)

    def tensors(self) -> dict[str, Tensor]:
        """Everything, under names like ``closed/0/U/lm_head.weight``."""
        state = {f"X/{name}": x for name, x in self.X.items()}
        state |= {f"a/{name}": a for name, a in self.a.items()}
        state["keep"] = torch.tensor(self.keep, dtype=torch.float64)
        for where, term in self._named_terms().items():
            state |= save_term(where, term)
        state |= self.extras.state()
        return state | {f"folder/{name}": value for name, value in self.folder.state().items()}

    def state(self) -> dict[str, Tensor]:
        """The same, copied to the CPU."""
        return on_cpu(self.tensors())

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a `state`."""
        for name, x in self.X.items():
            x.copy_(state[f"X/{name}"])
        for name, a in self.a.items():
            a.copy_(state[f"a/{name}"])
        self.moved = {name for name in self.a if state[f"a/{name}"].any()}
        self.keep = float(state["keep"])
        self.folder.load_state(with_prefix("folder", state))
        self.closed = []
        while (term := load_term(f"closed/{len(self.closed)}", state, self.X)) is not None:
            self.closed.append(term)
        self.open = load_term("open", state, self.X)
        self.attached = load_term("attached", state, self.X)
        self._loaded = True
        self.extras.load_state(state)

    def _named_terms(self) -> dict[str, LowRankTerm]:
        named = {f"closed/{j}": term for j, term in enumerate(self.closed)}
        if self.open is not None:
            named["open"] = self.open
        if self.attached is not None:
            named["attached"] = self.attached
        return named

    def _new_period(self, P: Subspace) -> LowRankTerm:
        _, b, _ = P.sizes
        A = {
            name: torch.zeros(len(U), b, device=self.X[name].device, dtype=wide(self.X[name].dtype))
            for name, U in P.U.items()
        }
        return LowRankTerm(A, P.V, torch.eye(b, dtype=torch.float64))

    def _close(self, fold: bool = False) -> None:
        if self.open is not None:
            self.closed.append(self._compact(self.open))
            self.open = None
        if fold or sum(term.C.shape[-1] for term in self.closed) > self.max_rank:
            self._fold()

    def _compact(self, term: LowRankTerm) -> LowRankTerm:
        """A closed period takes half the memory beside half-precision weights.

        bfloat16 whatever the weights are: float16 has no bits for factors as small as A. What that
        rounds away, 0.2 % of the period, cannot be seen beside what folding it rounds away.
        """

        def compact(factors: Factors) -> Factors:
            return {n: f.bfloat16() if is_half(self.X[n]) else f for n, f in factors.items()}

        return LowRankTerm(compact(term.U), compact(term.V), term.C)

    def _fold(self) -> None:
        """Closed periods go into the weights, and with them the decay."""
        for name, x in self.X.items():
            if x.ndim < 2:
                continue
            terms = [term for term in self.closed if name in term.U]
            if terms or self.keep != 1:
                W = x.flatten(1)
                A = _side_by_side([term.U[name] for term in terms], W, 0)
                V = _side_by_side([term.V[name] for term in terms], W, 1)
                self.folder.fold(name, W, A, V, self.keep)
        self.closed, self.keep = [], 1.0


def _side_by_side(factors: Sequence[Tensor], W: Tensor, dim: int) -> Tensor:
    like = W.new_zeros(W.shape[dim], 0, dtype=wide(W.dtype))
    return torch.cat([factor.to(like) for factor in factors], dim=1) if factors else like
