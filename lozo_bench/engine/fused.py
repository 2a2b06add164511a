"""Scoring candidates in one pass through the model, its weights untouched.

A candidate adds U C_k V^T and z s_k to where the weights are (`point.py`). While it is scored every
weight is replaced by its versions (`versions.py`), whose thin factors are those of the point and of
the candidates side by side:

    y_k = x W^T + (x [V_1 .. V_j V]) [I .. I | I C_k^T] [A_1 .. A_j A U]^T
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from lozo_bench.engine.fold import Folder
from lozo_bench.engine.point import Point
from lozo_bench.engine.score import FullRank, Only, Part, check_weights, unasked, whole
from lozo_bench.engine.sites import Sites
from lozo_bench.engine.subspace import Places, Subspace
from lozo_bench.engine.tensors import Sent, wide
from lozo_bench.engine.terms import Extras, Term
from lozo_bench.engine.versions import Columns, Pass, Thin, Versions
from lozo_bench.errors import UserError

# Below this many tokens a pass costs little more for another candidate, the weights being read once
# for all; above it, stacking only takes memory for activations.
STACKED_TOKENS = 256


class Fused:
    """An `Engine` that leaves the weights alone.

    Args:
        model: any model that takes the rows of a batch along the first dimension.
        X: those of its parameters that move, by name.
        folder: writes closed periods into the weights.
        max_rank: columns of closed periods that are kept unwritten; 0 writes each as it closes.
        per_forward: candidates in one pass; None: as many as stay within 256 tokens, at least 1.
        extras: further tensors that the model's function depends on.
    """

    def __init__(
        self,
        model: nn.Module,
        X: Mapping[str, Tensor],
        folder: Folder,
        max_rank: int = 0,
        per_forward: int | None = None,
        extras: Extras | None = None,
    ) -> None:
        check_weights(X)
        if model.training:
            raise UserError(
                "the model is in training mode: dropout would differ from candidate to candidate; "
                "call model.eval() first"
            )
        self.X, self.model, self.per_forward = X, model, per_forward
        self._stack_is_sound = False
        self.point = Point(X, folder, max_rank, extras)
        self.extras = self.point.extras
        self.move, self.attach = self.point.move, self.point.attach
        self.decay, self.settle = self.point.decay, self.point.settle
        self.tensors, self.state = self.point.tensors, self.point.state
        self.load_state = self.point.load_state
        self._sites = Sites(model, X)

    def losses(
        self,
        P: Subspace,
        places: Places,
        parts: Sequence[Part],
        only: Only = None,
        rows: Sequence[int] | None = None,
    ) -> Tensor:
        """See `Engine`."""
        self.point.know_again(P)
        if rows is not None and places.s.ndim == 3:
            places = places[:, list(rows)]
        if only is not None or not parts:
            losses = unasked(len(places), parts)
            if only and parts:
                losses[list(only)] = self.losses(P, places[list(only)], parts)
            return losses
        each = places.s.ndim == 3  # places of each example's own
        of_parts, start = [], 0
        for part in parts:
            here = places[:, start : start + part.size] if each else places
            start += part.size
            count = self.per_forward or max(1, STACKED_TOKENS // max(1, part.tokens))
            passes = [here[k : k + count] for k in range(0, len(here), count)]
            of_parts.append(torch.cat([self._pass(P, some, part) for some in passes]))
            if not self._stack_is_sound and (each or count > 1):
                self._check_stack(P, here, part, of_parts[-1])
        return torch.cat(of_parts, dim=1)

    def returning_if_it_fails(self) -> AbstractContextManager[None]:
        """See `Engine`: the weights never left."""
        return nullcontext()

    def full_rank_losses(
        self, z: FullRank, at: Sequence[float], parts: Sequence[Part], only: Only = None
    ) -> Tensor:
        """Refused: there is nothing thin to add to a product.

        Raises:
            UserError: always.
        """
        raise _no_full_rank()

    def full_rank_move(self, z: FullRank, by: float) -> None:
        """Refused like `full_rank_losses`."""
        raise _no_full_rank()

    def slopes(self, v: FullRank, parts: Sequence[Part]) -> Tensor:
        """Refused like `full_rank_losses`."""
        raise _no_full_rank()

    @contextmanager
    def weights(self) -> Iterator[None]:
        """See `Engine`."""
        with self._in_versions(self.point.terms, {}, torch.zeros(1, 0), groups=1):
            yield

    def _pass(self, P: Subspace, places: Places, part: Part) -> Tensor:
        """Losses [K, size] of K candidates that go through the model together."""
        K = len(places)
        flat = places.flat() if places.s.ndim == 3 else places
        terms = [*self.point.terms, Term(P.U, P.V, flat.C)] if P.U else self.point.terms
        with (
            torch.inference_mode(),
            self._in_versions(terms, P.z, flat.s, groups=len(flat)),
        ):
            return whole(part, K)

    def _check_stack(self, P: Subspace, places: Places, part: Part, stacked: Tensor) -> None:
        """Once: the first candidates have the losses that they have by themselves.

        A model that does not keep the rows of a batch apart along the first dimension would mix
        candidates without a word; their losses then come out wrong by a share of their spread.

        Raises:
            UserError: they have not.
        """
        for k in range(min(2, len(places))):
            one = places[k : k + 1]
            if places.s.ndim == 3:  # of the first example's own
                one = Places(one.C[:, 0], one.s[:, 0])
            columns = slice(0, 1) if places.s.ndim == 3 else slice(None)
            alone = self._pass(P, one, part)[0, columns]
            off = (stacked[k, columns] - alone).abs().max()
            noise = 64 * torch.finfo(self._coarsest).eps * (1 + alone.abs().max())
            spread = (stacked[:, columns] - stacked[:, columns].mean(0)).abs().max()
            if off > noise and off > 1e-3 * spread:
                raise UserError(
                    "engine.candidates_per_forward: candidates scored together have other losses "
                    f"than by themselves ({float(off):.1e} apart): {type(self.model).__name__} "
                    "does not keep the rows of a batch apart along the first dimension; "
                    "candidates_per_forward=1 or engine.mode=in_place works for it"
                )
        self._stack_is_sound = True

    @property
    def _coarsest(self) -> torch.dtype:
        """The dtype that rounds most: float32 at best, in which many models compute their norms."""
        dtypes = {x.dtype for x in self.X.values()} | {torch.float32}
        return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)

    @contextmanager
    def _in_versions(
        self, terms: Sequence[Term], z: Mapping[str, Tensor], s: Tensor, groups: int
    ) -> Iterator[None]:
        during = Pass(groups)
        sent = Sent()
        versions = {}
        for name, x in self.X.items():
            mine = [term for term in terms if name in term.U]
            if x.ndim < 2 and (name in z or name in self.point.moved):
                change: Thin | Columns = _columns(self.point.a[name], z.get(name), s, sent)
            elif x.ndim >= 2 and (mine or self.point.keep != 1):
                change = _thin(name, x, mine, groups, self.point.keep, sent)
            else:
                continue
            versions[name] = Versions.of(x, change, during)

        def count_rows(
            module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
        ) -> None:
            tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
            during.rows = len(tensors[0]) if tensors else groups

        hook = self.model.register_forward_pre_hook(count_rows, with_kwargs=True)
        try:
            with self._sites.holding(versions):
                yield
        finally:
            hook.remove()


def _columns(a: Tensor, z: Tensor | None, s: Tensor, sent: Sent) -> Columns:
    """What has been gathered of a vector, which all versions have, and the candidates' own."""
    ones = torch.ones(len(s), 1)
    if z is None:
        return Columns(a.view(-1, 1), sent(("a",), lambda: ones, a))
    both = sent(("a", "z"), lambda: torch.cat([ones.to(s), s], dim=1), a)
    return Columns(torch.cat([a.view(-1, 1), z.to(a)], dim=1), both)


def _thin(
    name: str, x: Tensor, terms: Sequence[Term], groups: int, keep: float, sent: Sent
) -> Thin:
    """The terms' factors side by side; a V that several terms share is there once."""
    like = x.new_zeros(0, dtype=wide(x.dtype))
    U = [term.U[name].to(like) for term in terms]
    V = [V[name].to(like) for V in _different([term.V for term in terms])]
    return Thin(
        _beside(U, like.new_zeros(len(x), 0)),
        _beside(V, like.new_zeros(x[0].numel(), 0)),
        sent(tuple(map(id, terms)), lambda: _core(terms, groups), like),
        keep,
    )


def _core(terms: Sequence[Term], groups: int) -> Tensor:
    """The cores of all terms as blocks of one, [G, a, b], float64."""
    Vs = _different([term.V for term in terms])
    widths = [next(iter(V.values())).shape[1] for V in Vs]
    height = sum(term.C.shape[-2] for term in terms)
    core = torch.zeros(groups, height, sum(widths), dtype=torch.float64)
    top = 0
    for term in terms:
        which = next(i for i, V in enumerate(Vs) if V is term.V)
        left, (a, b) = sum(widths[:which]), term.C.shape[-2:]
        core[:, top : top + a, left : left + b] = term.C
        top += a
    return core


def _different(Vs: Sequence[Mapping[str, Tensor]]) -> list[Mapping[str, Tensor]]:
    return [V for i, V in enumerate(Vs) if not any(V is earlier for earlier in Vs[:i])]


def _beside(factors: Sequence[Tensor], none: Tensor) -> Tensor:
    return torch.cat(list(factors), dim=1) if len(factors) > 1 else (*factors, none)[0]


def _no_full_rank() -> UserError:
    return UserError(
        "engine.mode: given fused; this optimizer moves along directions of full rank, which can "
        "only be scored in place; use engine.mode=in_place or auto"
    )
