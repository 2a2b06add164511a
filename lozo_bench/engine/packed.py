"""The factors of all matrices side by side in buffers, ready for the products of a forward pass.

A GPU computes a small product in less time than the host needs to start it. Therefore nothing is
computed weight by weight here. Two buffers hold the factors of all matrices, in the weights' dtype:

    right   [k, sum of all n]      the V of the candidates and of all closed periods
    left    [G, k, sum of all m]   what belongs to them: A + U C_g of the candidates, A_j of others

A closed period is written once. For each forward pass, a few operations write the rows of its
candidates and the changes of the biases. `prepared.py` describes the products that use the buffers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lozo_bench.engine.formed import form, room_to_form
from lozo_bench.engine.pending import PendingUpdate
from lozo_bench.engine.prepared import PreparedMatrix, PreparedVector
from lozo_bench.engine.rows import Rows, aligned
from lozo_bench.engine.subspace import Coordinates, Subspace
from lozo_bench.engine.tensors import wide
from lozo_bench.engine.terms import LowRankTerm
from lozo_bench.engine.versions import ForwardPass, Versions

# A copy of every factor is needed for each version that a forward pass computes. More versions than
# this share a pass only without these buffers.
MOST_VERSIONS = 4
# Steps are too small for float16, whose smallest normal number is 6e-5. So `left` is multiplied and
# `right` divided by this number.
_SCALE_OF_FLOAT16 = 256.0
_COLUMNS_AT_ONCE = 64


class Packed:
    """The versions of all weights that one forward pass computes, in the buffers.

    Args:
        model: the model, in which a matrix and its bias belong to one module.
        pending: the weights, among them a matrix, and their updates, which are joined.

    Attributes:
        forms: whether versions may be formed (see `formed.py`).
        to_form: the matrices of which they may be, by name.
    """

    def __init__(self, model: nn.Module, pending: PendingUpdate) -> None:
        X = pending.X
        self.pending, self.vectors = pending, pending.vectors
        matrices = {name: x for name, x in X.items() if x.ndim >= 2}
        self.m = Rows({name: len(x) for name, x in matrices.items()})
        self.n = Rows({name: x[0].numel() for name, x in matrices.items()})
        first = next(iter(matrices.values()))
        self.device, self.dtype, self.exact = first.device, first.dtype, wide(first.dtype)
        self.on_gpu = self.device.type != "cpu"
        self.up = _SCALE_OF_FLOAT16 if self.dtype == torch.float16 else 1.0
        self.forms = not self.on_gpu and self.dtype == self.exact
        self.to_form = {n: x for n, x in matrices.items() if self.forms and x.ndim == 2}
        self.bias_of = _biases(model, X)
        self._buffers: _Buffers | None = None

    def memory_of(self, versions: Mapping[str, Tensor]) -> object | None:
        """Return an object that stays the same as long as these versions keep their memory.

        It is None for versions that are not in the buffers.
        """
        made = {} if self._buffers is None else self._buffers.made
        return made if any(versions is one.versions for one in made.values()) else None

    @torch.inference_mode(False)  # the buffers outlive an inference mode in which they are made
    @torch.no_grad()
    def versions(
        self, P: Subspace, point: Coordinates
    ) -> tuple[dict[str, Tensor], ForwardPass] | None:
        """Write the candidates' versions of all weights to the buffers and return them.

        They are valid until the next call.

        Args:
            P: the subspace of the candidates.
            point: their coordinates, with the leading dimension [G].

        Returns:
            The versions by name; None if the buffers cannot hold these candidates.
        """
        pending, G = self.pending, len(point)
        V = P.V if P.U else None if pending.open is None else pending.open.V
        own = pending.open if pending.open is not None and pending.open.V is V else None
        others = [term for term in pending.terms if term is not own]
        if not self._can_hold(P, G):
            return None
        buffers = self._with_room(G, _columns(V), sum(_columns(term.V) for term in others))
        buffers.hold(others)
        buffers.hold_candidates(V, None if V is None else self._left(P, point.C, V))
        if self.vectors.lengths:
            buffers.hold_vectors(self._changes(P, point.s).expand(G, -1))
        return buffers.versions(G, pending.keep)

    def _can_hold(self, P: Subspace, G: int) -> bool:
        return (
            G <= MOST_VERSIONS
            and self.pending.adapter is None
            and (not P.U or self.m.has(P.U))
            and (not P.z or self.vectors.has(P.z))
            and all(term.joined is not None and self.m.has(term.U) for term in self.pending.terms)
        )

    def bias_index(self) -> tuple[Tensor, Tensor]:
        """Return which vector's element belongs to each left row, and its factor, [total of m].

        The factor is 0 for matrices without a bias.
        """
        index = torch.zeros(self.m.total, dtype=torch.int64)
        scale = torch.zeros(self.m.total, dtype=self.exact)
        for name, bias in self.bias_of.items():
            part = self.vectors.part(bias)
            index[self.m.part(name)] = torch.arange(part.start, part.stop)
            scale[self.m.part(name)] = self.up
        return index.to(self.device), scale.to(self.device)

    def _with_room(self, G: int, columns: int, others: int) -> _Buffers:
        """Return buffers for the candidates' columns and those of other periods."""
        old = self._buffers
        if old is not None and old.has_room(G, columns, others):
            return old
        self._buffers = old = None  # frees the memory before the new buffers are made
        # Room for the periods that will close, but not at once for as many as a very large
        # max_rank allows.
        later = max(others, min(self.pending.max_rank, _COLUMNS_AT_ONCE))
        k = 1 + 2 * columns + later
        self._buffers = _Buffers(self, G, columns, aligned(k) if self.on_gpu else k)
        return self._buffers

    def _left(self, P: Subspace, C: Tensor, V: Mapping[str, Tensor]) -> Tensor:
        """Return A + U C_g of all matrices, [G, total, b]; A only if its V is the candidates'."""
        term = self.pending.open
        A = None if term is None or term.V is not V else _joined(term)
        if not P.U:
            assert A is not None
            return self.up * A[None]
        cores = C.to(self.device, self.exact)
        U = self.m.join(P.U).to(self.exact).expand(len(cores), -1, -1)
        if A is None:
            return torch.bmm(U, self.up * cores)
        return torch.baddbmm(A.expand(len(cores), -1, -1), U, cores, beta=self.up, alpha=self.up)

    def _changes(self, P: Subspace, s: Tensor) -> Tensor:
        """Return a + z s_g of all vectors, [G or 1, total]."""
        a = self.pending.joined_a
        assert a is not None
        if not P.z:
            return a[None]
        z = self.vectors.join(P.z).to(self.exact)
        return torch.addmm(a, s.to(self.device, self.exact), z.mT)


@dataclass(frozen=True, slots=True)
class _Made:
    """Versions that use the buffers' memory, and which of their matrices are formed from it."""

    versions: dict[str, Tensor]
    forward_pass: ForwardPass
    formed: list[tuple[Tensor, PreparedMatrix]]  # with the plain matrix


class _Buffers:
    """The buffers for up to G versions, of whose k columns ``columns`` are the candidates'."""

    def __init__(self, packed: Packed, G: int, columns: int, k: int) -> None:
        self.packed, self.G, self.columns = packed, G, columns
        m, n, d = packed.m, packed.n, packed.vectors
        device, dtype = packed.device, packed.dtype
        self.left = torch.zeros(G, k, aligned(m.total), device=device, dtype=dtype)
        self.right = torch.zeros(k, aligned(n.total), device=device, dtype=dtype)
        self.e = torch.zeros(k, device=device, dtype=dtype)
        self.e[0] = 1 / packed.up
        self.change = torch.zeros(G, d.total, device=device, dtype=packed.exact)
        self.values = torch.zeros_like(self.change)
        self.plain = torch.zeros_like(self.change[0])
        self._plain_vectors = [
            self.plain[d.part(name)].view(packed.pending.X[name].shape) for name in d.lengths
        ]
        self._stamp: list[tuple[int, int]] = []
        self._bias_at, self._bias_scale = packed.bias_index()
        self._V: Mapping[str, Tensor] | None = None
        self._held: list[tuple[LowRankTerm, int]] = []  # with the stamp of its left factors
        self._used = 1 + columns
        self._at: list[int] = []
        self.made: dict[tuple[int, int], _Made] = {}  # by the numbers of versions and columns
        self._formed, self._scratch = room_to_form(packed.to_form, G)

    def has_room(self, G: int, columns: int, others: int) -> bool:
        """Return whether G candidates of some columns (0: none) and other periods fit in."""
        same = columns in (0, self.columns)
        return same and self.G >= G and 1 + self.columns + others <= len(self.right)

    def hold(self, terms: Sequence[LowRankTerm]) -> None:
        """Write the factors of periods that are not the candidates', unless they are there."""
        wanted = [(term, _joined(term)._version) for term in terms]
        same = 0
        while same < min(len(wanted), len(self._held)) and _is(wanted[same], self._held[same]):
            same += 1
        if same == len(wanted) == len(self._held):
            return
        at = 1 + self.columns + sum(_columns(term.V) for term in terms[:same])
        for term in terms[same:]:
            end = at + _columns(term.V)
            self._write_right(slice(at, end), term.V)
            self._write_left(slice(at, end), _joined(term)[None] * self.packed.up)
            at = end
        self.left[:, at : self._used].zero_()
        self.right[at : self._used].zero_()
        self._held, self._used = wanted, at

    def hold_candidates(self, V: Mapping[str, Tensor] | None, left: Tensor | None) -> None:
        """Write the rows of the candidates; ``left`` [G, total of m, b] is already scaled."""
        rows = slice(1, 1 + self.columns)
        if V is None or left is None:
            self.left[:, rows].zero_()
            return
        if V is not self._V:
            self._write_right(rows, V)
            self._V = V
        self._write_left(rows, left)

    def hold_vectors(self, change: Tensor) -> None:
        """Write the versions of all vectors [G, total], and those of biases to ``left``."""
        packed, G = self.packed, len(change)
        self._read_vectors()
        self.change[:G] = change
        torch.add(self.plain, change, out=self.values[:G])
        of_biases = change.index_select(1, self._bias_at).mul_(self._bias_scale)
        self.left[:G, 0, : packed.m.total] = of_biases

    def _read_vectors(self) -> None:
        """Copy the plain vectors; on a GPU only after a write.

        A CPU copies them as fast as it looks for one, and does not miss `x.data.add_`, which leaves
        the version of x as it is.
        """
        vectors = [self.packed.pending.X[name] for name in self.packed.vectors.lengths]
        if self.packed.on_gpu:
            stamp = [(x._version, x.data_ptr()) for x in vectors]
            if stamp == self._stamp:
                return
            self._stamp = stamp
        torch._foreach_copy_(self._plain_vectors, vectors)

    def versions(self, G: int, keep: float) -> tuple[dict[str, Tensor], ForwardPass]:
        """Return the first G versions of all weights; they share the buffers' memory.

        A weight's only version is a plain tensor if its value is formed in the weight's dtype.
        """
        at = [x.data_ptr() for x in self.packed.pending.X.values()]
        if at != self._at:  # something gave the model's parameters other memory
            self._at, self.made = at, {}
        # A GPU reads aligned blocks; a CPU computes no more columns than it has to.
        key = (G, aligned(self._used) if self.packed.on_gpu else self._used)
        if key not in self.made:
            self.made[key] = self._new(*key)
        made = self.made[key]
        made.forward_pass.keep = keep
        for W, change in made.formed:
            form(W, change, keep)
        return made.versions, made.forward_pass

    def _new(self, G: int, k: int) -> _Made:
        packed, forward_pass = self.packed, ForwardPass(G)
        X, alone = packed.pending.X, G == 1 and packed.forms
        made: dict[str, Tensor] = {}
        formed: list[tuple[Tensor, PreparedMatrix]] = []
        vectors: dict[str, PreparedVector] = {}
        for name in packed.vectors.lengths:
            part = packed.vectors.part(name)
            vectors[name] = PreparedVector(self.change[:G, part], self.values[:G, part])
            if alone and X[name].dtype == packed.exact:
                made[name] = self.values[0, part].view(X[name].shape)
            else:
                made[name] = Versions.of(X[name], vectors[name], forward_pass)
        for name in packed.m.lengths:
            bias = packed.bias_of.get(name)
            change = PreparedMatrix(
                self.right[:k, packed.n.part(name)],
                self.left[:G, :k, packed.m.part(name)],
                self.e[:k],
                None if bias is None else vectors[bias],
                self._formed[name][:G] if name in self._formed else None,
                self._scratch if alone else None,
            )
            if change.formed is not None:
                formed.append((X[name], change))
            if change.formed is not None and alone:
                made[name] = change.formed[0]
            else:
                made[name] = Versions.of(X[name], change, forward_pass)
        return _Made(made, forward_pass, formed)

    def _write_right(self, rows: slice, V: Mapping[str, Tensor]) -> None:
        joined = self.packed.n.join(V).mT
        scaled = joined if self.packed.up == 1 else joined.float() / self.packed.up
        self.right[rows, : self.packed.n.total] = scaled

    def _write_left(self, rows: slice, left: Tensor) -> None:
        """Write left factors [G or 1, total of m, b], for all versions if they are the same."""
        G = len(left) if len(left) > 1 else self.G
        self.left[:G, rows, : self.packed.m.total] = left.mT


def _columns(V: Mapping[str, Tensor] | None) -> int:
    return next(iter(V.values())).shape[1] if V else 0


def _joined(term: LowRankTerm) -> Tensor:
    assert term.joined is not None
    return term.joined


def _is(one: tuple[LowRankTerm, int], other: tuple[LowRankTerm, int]) -> bool:
    return one[0] is other[0] and one[1] == other[1]


def _biases(model: nn.Module, X: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the bias that a module adds to its product with a matrix, by the matrix's name."""
    names = {id(x): name for name, x in X.items()}
    found = {}
    for module in model.modules():
        weight, bias = (module._parameters.get(key) for key in ("weight", "bias"))
        if weight is None or bias is None or weight.ndim != 2 or bias.shape != weight.shape[:1]:
            continue
        if id(weight) in names and id(bias) in names:
            found[names[id(weight)]] = names[id(bias)]
    return found
