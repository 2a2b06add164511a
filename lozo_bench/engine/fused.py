"""The fused engine: it computes the losses of several candidates without writing to the weights.

Candidate k adds U C_k V^T to each matrix and z s_k to each vector, on top of the pending updates
(`pending.py`), which are low-rank terms as well: A_j V_j^T of closed periods and A V^T of the open
one. The candidates usually have the V of the open period. During a forward pass, a tensor that
represents all versions of a weight (`versions.py`) replaces the weight, so that a linear layer
computes

    y_k = x W^T + sum_j (x V_j) A_j^T + (x V) (A + U C_k)^T

A CPU forms some versions before it multiplies by them, which is faster there (`formed.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from lozo_bench.engine.finite import checked_losses, on_host, unknown_losses
from lozo_bench.engine.fold import Folder
from lozo_bench.engine.graphs import Graphs
from lozo_bench.engine.packed import MOST_VERSIONS, Packed
from lozo_bench.engine.pending import PendingUpdate
from lozo_bench.engine.prefix import Prefix
from lozo_bench.engine.protocol import FullRank, MicroBatch, Only
from lozo_bench.engine.sites import Sites
from lozo_bench.engine.subspace import NOWHERE, Coordinates, Subspace
from lozo_bench.engine.tensors import DeviceCache, check_weights, wide
from lozo_bench.engine.terms import Extras, LowRankTerm
from lozo_bench.engine.versions import ForwardPass, LowRankChange, VectorChange, Versions
from lozo_bench.errors import UserError

# Up to about this many tokens, a forward pass spends its time on reading the weights (on a GPU also
# on starting kernels), so another candidate in the same pass costs little. With more tokens,
# stacking candidates saves no time and takes more memory for activations.
STACKED_TOKENS, STACKED_TOKENS_ON_GPU = 256, 2048


# The only point of the subspace `NOWHERE`.
_ORIGIN = Coordinates(torch.zeros(1, 0, 0, dtype=torch.float64), torch.zeros(1, 0))


class Fused:
    """An `Engine` that scores candidates without writing to the weights.

    Args:
        model: any model whose inputs have the rows of the batch along the first dimension; it must
            be in evaluation mode.
        X: the trainable parameters of the model, by name.
        folder: adds the updates of closed periods to the weights.
        max_rank: how many columns of closed periods may stay beside the weights before they are
            folded; 0 folds each period when it closes.
        per_forward: how many candidates share one forward pass; None: as many as fit into 256
            tokens (2048 on a GPU, and at most 4), at least 1.
        extras: further tensors that the model's function depends on.
        reuse_prefix: whether layers that the candidates have in common are run once for all.
        graphs: whether forward passes on an NVIDIA GPU are recorded and repeated as CUDA graphs.

    Raises:
        UserError: the model is in training mode, or a weight cannot be viewed as a matrix.
    """

    def __init__(
        self,
        model: nn.Module,
        X: Mapping[str, Tensor],
        folder: Folder,
        max_rank: int = 0,
        per_forward: int | None = None,
        extras: Extras | None = None,
        reuse_prefix: bool = True,
        graphs: bool = True,
    ) -> None:
        check_weights(X)
        if model.training:
            raise UserError(
                "the model is in training mode, so dropout would differ between candidates; "
                "call model.eval() first"
            )
        self.X, self.model, self.per_forward = X, model, per_forward
        self._stacking_checked, self._is_applied = False, False
        self.extras = extras or Extras()
        self._prefix = Prefix(model, X, self.extras, reuse_prefix)
        self.pending = PendingUpdate(X, folder, max_rank, self.extras, self._prefix.changed)
        self.move, self.set_adapter = self.pending.move, self.pending.set_adapter
        self.decay, self.flush = self.pending.decay, self.pending.flush
        self.tensors, self.state = self.pending.tensors, self.pending.state
        self.snapshot, self.load_state = self.pending.snapshot, self.pending.load_state
        self._sites = Sites(model, X)
        self._on_gpu = any(x.device.type != "cpu" for x in X.values())
        joined = self.pending.kind is not None and any(x.ndim >= 2 for x in X.values())
        self._packed = Packed(model, self.pending) if joined else None
        # A graph would not notice what extras change in the model's function.
        may_record = all(x.is_cuda for x in X.values()) and not self.extras.tensors
        self._graphs = Graphs() if graphs and may_record else None

    def losses(
        self,
        P: Subspace,
        coordinates: Coordinates,
        parts: Sequence[MicroBatch],
        only: Only = None,
        rows: Sequence[int] | None = None,
    ) -> Tensor:
        """See `Engine`.

        Raises:
            UserError: it is called inside `applied`, whose weights lie where a candidate's would.
        """
        if self._is_applied:
            raise UserError(
                "engine.applied(): candidates are scored inside it, which would overwrite the "
                "weights that the model has there; leave it before the next step"
            )
        self.pending.recognize_period(P)
        if rows is not None and coordinates.s.ndim == 3:
            coordinates = coordinates[:, list(rows)]
        if only is not None or not parts:
            losses = unknown_losses(len(coordinates), parts)
            if only and parts:
                losses[list(only)] = self.losses(P, coordinates[list(only)], parts)
            return losses
        per_example = coordinates.s.ndim == 3  # each example has coordinates of its own
        losses_of_parts, start = [], 0
        first = coordinates[:1, : parts[0].size] if per_example else coordinates[:1]
        names, K = (*P.U, *P.z), len(coordinates)
        for part in self._prefix.shortened(
            parts, names, K, self.applied, lambda part: self._forward(P, first, part)
        ):
            here = coordinates[:, start : start + part.size] if per_example else coordinates
            start += part.size
            count = self.per_forward or self._stacked(part.tokens)
            passes = [here[k : k + count] for k in range(0, len(here), count)]
            losses_of_parts.append(torch.cat([self._forward(P, some, part) for some in passes]))
            if not self._stacking_checked and (per_example or min(count, K) > 1):
                self._check_stacking(P, here, part, on_host(losses_of_parts[-1]))
        return on_host(torch.cat(losses_of_parts, dim=1))

    def restored_on_failure(self) -> AbstractContextManager[None]:
        """See `Engine`. Nothing has to be restored: scoring does not write to the weights."""
        return nullcontext()

    def full_rank_losses(
        self, z: FullRank, at: Sequence[float], parts: Sequence[MicroBatch], only: Only = None
    ) -> Tensor:
        """Refuse full-rank directions, which have no low-rank factors to add to a product.

        Raises:
            UserError: always.
        """
        raise _no_full_rank()

    def full_rank_move(self, z: FullRank, by: float) -> None:
        """Refuse full-rank directions, see `full_rank_losses`."""
        raise _no_full_rank()

    def slopes(self, v: FullRank, parts: Sequence[MicroBatch]) -> Tensor:
        """Refuse full-rank directions, see `full_rank_losses`."""
        raise _no_full_rank()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """See `Engine`."""
        before, self._is_applied = self._is_applied, True
        try:
            with self._holding(*self._versions(NOWHERE, _ORIGIN)):
                yield
        finally:
            self._is_applied = before

    def _stacked(self, tokens: int) -> int:
        """Return how many candidates share a forward pass of rows with this many tokens."""
        if self._on_gpu:
            return max(1, min(MOST_VERSIONS, STACKED_TOKENS_ON_GPU // max(1, tokens)))
        return max(1, STACKED_TOKENS // max(1, tokens))

    def _forward(self, P: Subspace, coordinates: Coordinates, part: MicroBatch) -> Tensor:
        """Return the losses [K, size] of K candidates that share one forward pass."""
        flat = coordinates.flat() if coordinates.s.ndim == 3 else coordinates
        versions, forward_pass = self._versions(P, flat)

        def run(part: MicroBatch) -> Tensor:
            with self._holding(versions, forward_pass), torch.inference_mode():
                return checked_losses(part, len(coordinates))

        memory = None if self._packed is None else self._packed.memory_of(versions)
        if self._graphs is None or memory is None or forward_pass.keep != 1:
            return run(part)
        return self._graphs.losses(part, id(versions), memory, run)

    def _check_stacking(
        self, P: Subspace, coordinates: Coordinates, part: MicroBatch, stacked: Tensor
    ) -> None:
        """Check once that stacking does not change the losses of the first two candidates.

        A model that does not keep the rows of a batch apart along the first dimension would mix
        the candidates without an error. Their losses would then be wrong by an amount comparable
        to the differences between the candidates.

        Args:
            P: the subspace of the candidates.
            coordinates: those of the candidates that were scored together.
            part: the micro-batch.
            stacked: their losses [K, size].

        Raises:
            UserError: a candidate has another loss when it is scored by itself.
        """
        for k in range(min(2, len(coordinates))):
            one = coordinates[k : k + 1]
            if (
                coordinates.s.ndim == 3
            ):  # check the version of the first example, on that example only
                one = Coordinates(one.C[:, 0], one.s[:, 0])
            columns = slice(0, 1) if coordinates.s.ndim == 3 else slice(None)
            alone = on_host(self._forward(P, one, part)[0, columns])
            difference = (stacked[k, columns] - alone).abs().max()
            rounding = 64 * torch.finfo(self._coarsest).eps * (1 + alone.abs().max())
            spread = (stacked[:, columns] - stacked[:, columns].mean(0)).abs().max()
            if difference > rounding and difference > 1e-3 * spread:
                raise UserError(
                    "engine.candidates_per_forward: the losses of candidates that share a forward "
                    "pass differ from the losses of the same candidates scored one by one (by "
                    f"{float(difference):.1e}): {type(self.model).__name__} does not keep the rows "
                    "of a batch apart along the first dimension; set candidates_per_forward=1 or "
                    "engine.mode=in_place for this model"
                )
        self._stacking_checked = True

    @property
    def _coarsest(self) -> torch.dtype:
        """The coarsest dtype of the computation, which weights that do not change take part in.

        It is float32 for float64 weights too, because many models compute their norms in float32.
        """
        weights = [*self.X.values(), *self.model.parameters()]
        dtypes = {x.dtype for x in weights if x.is_floating_point()} | {torch.float32}
        return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)

    @contextmanager
    def _holding(self, versions: Mapping[str, Tensor], forward_pass: ForwardPass) -> Iterator[None]:
        """Inside this context, calling the model computes with versions of its weights."""

        def count_rows(
            module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
        ) -> None:
            tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
            forward_pass.rows = len(tensors[0]) if tensors else forward_pass.versions

        hook = self.model.register_forward_pre_hook(count_rows, with_kwargs=True)
        try:
            with self._sites.holding(versions):
                yield
        finally:
            hook.remove()

    @torch.no_grad()
    def _versions(
        self, P: Subspace, point: Coordinates
    ) -> tuple[Mapping[str, Tensor], ForwardPass]:
        """Return the versions of the weights at the points, by name; others are as they are."""
        pending, forward_pass = self.pending, ForwardPass(len(point))
        if not (P.U or P.z or pending.terms or pending.moved or pending.keep != 1):
            return {}, forward_pass
        if self._packed is not None and (packed := self._packed.versions(P, point)) is not None:
            return packed
        terms = [*pending.terms, LowRankTerm(P.U, P.V, point.C)] if P.U else pending.terms
        sent = DeviceCache()
        made: dict[str, Tensor] = {}
        for name, x in self.X.items():
            own_terms = [term for term in terms if name in term.U]
            if x.ndim < 2 and (name in P.z or name in pending.moved):
                change: LowRankChange | VectorChange = _vector_change(
                    pending.a[name], P.z.get(name), point.s, sent
                )
            elif x.ndim >= 2 and (own_terms or pending.keep != 1):
                change = _low_rank_change(name, x, own_terms, len(point), pending.keep, sent)
            else:
                continue
            made[name] = Versions.of(x, change, forward_pass)
        return made, forward_pass


def _vector_change(a: Tensor, z: Tensor | None, s: Tensor, sent: DeviceCache) -> VectorChange:
    """Return the change a + z s_g of a vector: its pending update and the candidates' columns.

    The pending update ``a`` is one more column, with the coefficient 1 in every version.
    """
    ones = torch.ones(len(s), 1)
    if z is None:
        return VectorChange(a.view(-1, 1), sent(("a",), lambda: ones, a))
    both = sent(("a", "z"), lambda: torch.cat([ones.to(s), s], dim=1), a)
    return VectorChange(torch.cat([a.view(-1, 1), z.to(a)], dim=1), both)


def _low_rank_change(
    name: str,
    x: Tensor,
    terms: Sequence[LowRankTerm],
    versions: int,
    keep: float,
    sent: DeviceCache,
) -> LowRankChange:
    """Return the factors of all terms side by side; a V that several terms share occurs once."""
    like = x.new_zeros(0, dtype=wide(x.dtype))
    U = [term.U[name].to(like) for term in terms]
    V = [V[name].to(like) for V in _distinct([term.V for term in terms])]
    return LowRankChange(
        _side_by_side(U, like.new_zeros(len(x), 0)),
        _side_by_side(V, like.new_zeros(x[0].numel(), 0)),
        sent(tuple(map(id, terms)), lambda: _joint_core(terms, versions), like),
        keep,
    )


def _joint_core(terms: Sequence[LowRankTerm], versions: int) -> Tensor:
    """Return one core [G, a, b], float64, that holds the cores of all terms as blocks."""
    Vs = _distinct([term.V for term in terms])
    widths = [next(iter(V.values())).shape[1] for V in Vs]
    height = sum(term.C.shape[-2] for term in terms)
    core = torch.zeros(versions, height, sum(widths), dtype=torch.float64)
    top = 0
    for term in terms:
        index = next(i for i, V in enumerate(Vs) if V is term.V)
        left, (a, b) = sum(widths[:index]), term.C.shape[-2:]
        core[:, top : top + a, left : left + b] = term.C
        top += a
    return core


def _distinct(Vs: Sequence[Mapping[str, Tensor]]) -> list[Mapping[str, Tensor]]:
    """Return the distinct objects among ``Vs``, in order; equal copies count as distinct."""
    return [V for i, V in enumerate(Vs) if not any(V is earlier for earlier in Vs[:i])]


def _side_by_side(factors: Sequence[Tensor], empty: Tensor) -> Tensor:
    return torch.cat(list(factors), dim=1) if len(factors) > 1 else (*factors, empty)[0]


def _no_full_rank() -> UserError:
    return UserError(
        "engine.mode: given fused; this optimizer uses full-rank directions, which can only be "
        "scored in place; set engine.mode=in_place or auto"
    )
