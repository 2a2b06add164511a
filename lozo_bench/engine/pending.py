"""The weights' value: what is in the model, and the updates that are not written to it yet.

    matrices    W + sum_j A_j V_j^T + A V^T + U C V^T
    vectors     p + a

The sum runs over the closed periods j; A V^T is the open period, and U C V^T the adapter. A and a
are float32 (float64 for float64 weights). A step along the open period's V changes only A, which is
exact, while the same step written to half-precision weights would be lost in rounding. When V
changes, the period is closed. When the closed periods have more than ``max_rank`` columns, they are
all folded into the weights at once, because each fold rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lozo_bench.engine.fold import Folder
from lozo_bench.engine.rows import Rows
from lozo_bench.engine.snapshot import LARGE, Snapshot, Snapshots
from lozo_bench.engine.stored import Kept, in_memory, put
from lozo_bench.engine.subspace import Coordinates, Factors, Subspace
from lozo_bench.engine.tensors import DeviceCache, is_half, on_cpu, wide
from lozo_bench.engine.terms import (
    Extras,
    LowRankTerm,
    Stamp,
    different,
    load_term,
    save_term,
    stamp,
    with_prefix,
)

# The factors of so many bytes are made together for a fold on a GPU.
_COLUMN_BYTES = 2**23


class PendingUpdate:
    """The weights and the updates that are not folded into them yet.

    Args:
        X: the weights by name; only folding writes to them.
        folder: folds low-rank terms into the weights.
        max_rank: how many columns of closed periods may stay unfolded; 0 folds each period when it
            closes.
        extras: further tensors that the model's function depends on.
        changed: called with the names of the weights whose value changes; None: any of them.

    Attributes:
        kind: the device and the dtype of all updates, which are then joined (see `rows.py`); None
            if the weights differ in them.
    """

    def __init__(
        self,
        X: Mapping[str, Tensor],
        folder: Folder,
        max_rank: int,
        extras: Extras | None = None,
        changed: Callable[[Iterable[str] | None], None] = lambda names: None,
    ) -> None:
        self.X, self.folder, self.max_rank, self._changed = X, folder, max_rank, changed
        self.extras = extras or Extras()
        self.closed: list[LowRankTerm] = []
        self.open: LowRankTerm | None = None
        self.adapter: LowRankTerm | None = None
        self._adapter_stamp: Stamp = {}
        self.kind = _kind_of(X)
        self._rows: dict[tuple[str, ...], Rows] = {}
        self.vectors = Rows({name: x.numel() for name, x in X.items() if x.ndim < 2})
        self.a, self.joined_a = self._no_update_of_vectors()
        self.moved: set[str] = set()  # names of vectors whose a is not zero
        self._loaded = False
        self.keep = 1.0
        self._snapshots = Snapshots()

    @property
    def terms(self) -> list[LowRankTerm]:
        """All low-rank terms: closed periods, the open one, and the adapter."""
        return [*self.closed, *filter(None, (self.open, self.adapter))]

    @torch.no_grad()
    def move(self, P: Subspace, to: Coordinates) -> None:
        """Add the point of P with these coordinates to the weights' value."""
        self._changed((*P.U, *P.z))
        if P.U:
            self.recognize_period(P)
            if self.open is None or self.open.V is not P.V:
                self._close()
                self.open = self._new_period(P)
            self._move_matrices(self.open, P.U, to.C)
        if P.z:
            self._move_vectors(P.z, to.s.tolist())

    def _move_matrices(self, term: LowRankTerm, U: Factors, C: Tensor) -> None:
        """A <- A + U C, for all matrices at once if they share memory."""
        A: Factors = term.U
        if term.joined is not None and U.keys() == A.keys():
            A, U = {"all": term.joined}, {"all": self.rows(A).join(U)}
        sent = DeviceCache()
        for name, factor in U.items():
            A[name].addmm_(factor.to(A[name]), sent(("C",), lambda: C, A[name]))

    def _move_vectors(self, z: Factors, s: Sequence[float]) -> None:
        """A <- a + z s, for all vectors at once if they share memory."""
        self.moved |= set(z)
        a: Factors = self.a
        if self.joined_a is not None and self.vectors.has(z):
            a, z = {"all": self.joined_a}, {"all": self.vectors.join(z)}
        for name, columns in z.items():
            # Python numbers are used because a product with s would need s on the device.
            for column, c in enumerate(s):
                a[name].add_(columns[:, column].view(a[name].shape).to(a[name]), alpha=c)

    def rows(self, names: Iterable[str]) -> Rows:
        """Return where the left factors of these matrices lie if they are one tensor."""
        key = tuple(names)
        if key not in self._rows:
            self._rows = {key: Rows({name: len(self.X[name]) for name in key})}
        return self._rows[key]

    def recognize_period(self, P: Subspace) -> None:
        """After `load_state`, continue the open period if V is equal; the loaded V is a copy."""
        if self._loaded and self.open is not None and P.U:
            mine = self.open.V
            if mine.keys() == P.V.keys() and all(torch.equal(mine[n], P.V[n]) for n in mine):
                self.open = replace(self.open, V=P.V)
            self._loaded = False

    def set_adapter(self, P: Subspace, at: Coordinates) -> None:
        """Set the adapter, in place of the one set before."""
        before, self.adapter = self.adapter, LowRankTerm(P.U, P.V, at.C)
        self._changed(different(before, self._adapter_stamp, self.adapter))
        self._adapter_stamp = stamp(self.adapter)

    @torch.no_grad()
    def decay(self, rate: float) -> None:
        """Multiply matrices by 1 - rate; W itself is multiplied when it is next folded."""
        if rate:
            self._changed(None)
            self.keep *= 1 - rate
            for term in (*self.closed, *filter(None, [self.open])):
                for A in term.U.values() if term.joined is None else [term.joined]:
                    A.mul_(1 - rate)

    @torch.no_grad()
    def flush(self) -> None:
        """Write everything except the adapter to X; what rounding leaves of a is kept."""
        self._changed(None)
        self._close(fold=True)
        for name, a in self.a.items():
            x = self.X[name]
            wanted = x.to(a.dtype) + a
            self._snapshots.keep(f"X/{name}")
            x.copy_(wanted)
            a.copy_(wanted - x)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors of the value, under names like ``closed/0/U/lm_head.weight``."""
        state = {f"X/{name}": x for name, x in self.X.items()}
        state |= {f"a/{name}": a for name, a in self.a.items()}
        state["keep"] = torch.tensor(self.keep, dtype=torch.float64)
        for where, term in self._named_terms().items():
            state |= save_term(where, term)
        state |= self.extras.state()
        return state | {f"folder/{name}": value for name, value in self.folder.state().items()}

    def state(self) -> dict[str, Tensor]:
        """Return copies of `tensors` on the CPU."""
        return on_cpu(self.tensors())

    def snapshot(self, scratch: Path | None = None, spare: Snapshot | None = None) -> Snapshot:
        """Return the tensors of now; those of the weights' size are copied before a fold."""
        tensors = self.tensors()
        large = [name for name in tensors if name.startswith(LARGE)]
        return self._snapshots.take(tensors, large, scratch, spare)

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Kept]) -> None:
        """Restore what `state` returned."""
        self._changed(None)
        for name, x in self.X.items():
            if (saved := state[f"X/{name}"]) is not x:
                self._snapshots.keep(f"X/{name}")
                put(x, saved)
        self.folder.load_state(with_prefix("folder", state))
        self._load_updates(in_memory(state))

    def _load_updates(self, state: Mapping[str, Tensor]) -> None:
        """Restore everything but the weights and what the folder keeps of them."""
        for name, a in self.a.items():
            a.copy_(state[f"a/{name}"])
        self.moved = {name for name in self.a if state[f"a/{name}"].any()}
        self.keep = float(state["keep"])
        self.closed = []
        while (term := load_term(f"closed/{len(self.closed)}", state, self.X)) is not None:
            self.closed.append(self._joined(term))
        open_term = load_term("open", state, self.X)
        self.open = None if open_term is None else self._joined(open_term)
        self.adapter, self._adapter_stamp = load_term("attached", state, self.X), {}
        self._loaded = True
        self.extras.load_state(state)

    def _named_terms(self) -> dict[str, LowRankTerm]:
        named = {f"closed/{j}": term for j, term in enumerate(self.closed)}
        if self.open is not None:
            named["open"] = self.open
        if self.adapter is not None:
            named["attached"] = self.adapter
        return named

    def _new_period(self, P: Subspace) -> LowRankTerm:
        _, b, _ = P.sizes
        core = torch.eye(b, dtype=torch.float64)
        if self.kind is not None:
            device, dtype = self.kind
            rows = self.rows(name for name in self.X if name in P.U)  # as in a loaded state
            joined = torch.zeros(rows.total, b, device=device, dtype=dtype)
            return LowRankTerm(rows.views(joined), P.V, core, joined)
        A = {
            name: torch.zeros(len(U), b, device=self.X[name].device, dtype=wide(self.X[name].dtype))
            for name, U in P.U.items()
        }
        return LowRankTerm(A, P.V, core)

    def _joined(self, term: LowRankTerm) -> LowRankTerm:
        """Return a loaded term as it was when it was saved: in the weights' order, joined."""
        names = [name for name in self.X if name in term.U]
        V = {name: term.V[name] for name in names}
        if self.kind is None:
            return replace(term, U={name: term.U[name] for name in names}, V=V)
        rows = self.rows(names)
        joined = rows.join(term.U)
        return replace(term, U=rows.views(joined), V=V, joined=joined)

    def _no_update_of_vectors(self) -> tuple[dict[str, Tensor], Tensor | None]:
        """Return an update of zero for each vector, and the tensor of which they are parts."""
        if self.kind is not None and self.vectors.lengths:
            device, dtype = self.kind
            joined = torch.zeros(self.vectors.total, device=device, dtype=dtype)
            parts = self.vectors.views(joined)
            return {name: a.view(self.X[name].shape) for name, a in parts.items()}, joined
        return {
            name: torch.zeros_like(self.X[name], dtype=wide(self.X[name].dtype))
            for name in self.vectors.lengths
        }, None

    def _close(self, fold: bool = False) -> None:
        if self.open is not None:
            self._changed(self.open.U)  # a compact term is rounded
            self.closed.append(self._compact(self.open))
            self.open = None
        if fold or sum(term.C.shape[-1] for term in self.closed) > self.max_rank:
            self._fold()

    def _compact(self, term: LowRankTerm) -> LowRankTerm:
        """Keep a closed period of half-precision weights in bfloat16, at half the memory.

        bfloat16 is also used for float16 weights, because A is too small for float16. This rounding
        changes the period by 0.2 %, far less than folding it does.
        """

        def compact(factors: Factors) -> Factors:
            return {n: f.bfloat16() if is_half(self.X[n].dtype) else f for n, f in factors.items()}

        if term.joined is None:
            return LowRankTerm(compact(term.U), compact(term.V), term.C)
        halves = all(is_half(self.X[name].dtype) for name in term.U)
        if not halves:
            return term
        joined, rows_of_V = term.joined.bfloat16(), Rows({n: len(V) for n, V in term.V.items()})
        V = rows_of_V.views(rows_of_V.join(term.V).bfloat16())
        return LowRankTerm(self.rows(term.U).views(joined), V, term.C, joined)

    def _fold(self) -> None:
        """Fold the closed periods and the decay into the weights."""
        self._changed(None)
        on_gpu = self.kind is not None and self.kind[0].type != "cpu"
        columns = _Columns(self.closed) if on_gpu and _have_same_names(self.closed) else None
        for name, x in self.X.items():
            if x.ndim < 2:
                continue
            terms = [term for term in self.closed if name in term.U]
            if terms or self.keep != 1:
                W = x.flatten(1)
                if columns is not None and terms:
                    A, V = columns.of(name)
                else:
                    A = _side_by_side([term.U[name] for term in terms], W, 0)
                    V = _side_by_side([term.V[name] for term in terms], W, 1)
                self._snapshots.keep(f"X/{name}", f"folder/residual/{name}")
                self.folder.fold(name, W, A, V, self.keep)
        self.closed, self.keep = [], 1.0


class _Columns:
    """The factors of several periods side by side, for several matrices at once.

    A GPU adds them to a weight as they are, because each column is contiguous and not in half
    precision. Factors of all matrices at once would take three times the memory of the periods.

    Args:
        terms: the periods, all of the same matrices.
    """

    def __init__(self, terms: Sequence[LowRankTerm]) -> None:
        self._m, self._n = (
            Rows({name: len(factors[name]) for name in terms[0].U})
            for factors in (terms[0].U, terms[0].V)
        )
        self._U, self._V = (
            [rows.join(factors) for factors in each]
            for rows, each in (
                (self._m, [term.U for term in terms]),
                (self._n, [term.V for term in terms]),
            )
        )
        self._columns = sum(U.shape[1] for U in self._U)
        self._made: dict[str, tuple[Tensor, Tensor]] = {}

    def of(self, name: str) -> tuple[Tensor, Tensor]:
        """Return the factors of one matrix, [m, R] and [n, R]; matrices come in their order."""
        if name not in self._made:
            self._made = {}  # frees the memory before the next factors are made
            names = self._from(name)
            left, right = (
                _side_by_side_of(rows, names, factors)
                for rows, factors in ((self._m, self._U), (self._n, self._V))
            )
            self._made = {each: (left[each], right[each]) for each in names}
        return self._made[name]

    def _from(self, first: str) -> list[str]:
        """Return the names from this one on whose factors are made together."""
        names, size = list(self._m.lengths), 0
        start = stop = names.index(first)
        while stop < len(names) and (stop == start or size < _COLUMN_BYTES):
            length = self._m.lengths[names[stop]] + self._n.lengths[names[stop]]
            size += length * self._columns * self._U[0].element_size()
            stop += 1
        return names[start:stop]


def _side_by_side_of(
    rows: Rows, names: Sequence[str], factors: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Return the columns [length, R] of several tensors' rows, from factors [rows.total, a]."""
    first, last = rows.part(names[0]).start, rows.part(names[-1]).stop
    joined = torch.cat([factor[first:last].T for factor in factors])
    joined = joined.to(wide(joined.dtype))
    parts = {name: rows.part(name) for name in names}
    return {name: joined[:, at.start - first : at.stop - first].T for name, at in parts.items()}


def _have_same_names(terms: Sequence[LowRankTerm]) -> bool:
    return bool(terms) and all(term.U.keys() == terms[0].U.keys() for term in terms)


def _kind_of(X: Mapping[str, Tensor]) -> tuple[torch.device, torch.dtype] | None:
    """Return the device and the dtype of all updates; None if the weights have not one of each.

    Updates of matrices can only be one tensor if all matrices have one dtype.
    """
    kinds = {(x.device, wide(x.dtype)) for x in X.values()}
    dtypes = {x.dtype for x in X.values() if x.ndim >= 2}
    return kinds.pop() if len(kinds) == 1 and len(dtypes) < 2 else None


def _side_by_side(factors: Sequence[Tensor], W: Tensor, dim: int) -> Tensor:
    like = W.new_zeros(W.shape[dim], 0, dtype=wide(W.dtype))
    return torch.cat([factor.to(like) for factor in factors], dim=1) if factors else like
