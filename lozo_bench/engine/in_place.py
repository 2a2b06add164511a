"""The engine that scores a candidate by moving the weights to it, in place.

Each move is one pass over the weights, without a temporary tensor of their size. The weights are
moved back as late as possible: an update along the direction that was just scored is merged with
the way back, so that two losses and an update take three passes. The published code takes four
(+ eps, - 2 eps, + eps, update); ``merges=False`` does so too, to show what its rounding costs.

In half precision each pass rounds. This engine is meant for float32 and float64, and for full-rank
directions, which no other engine can score. It is also the reference for testing `fused.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from lozo_bench.engine.directions import Restricted
from lozo_bench.engine.finite import checked_losses, on_host, unknown_losses
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.engine.prefix import Prefix
from lozo_bench.engine.protocol import FullRank, MicroBatch, Only
from lozo_bench.engine.shown import every, now, shown
from lozo_bench.engine.sites import Sites
from lozo_bench.engine.snapshot import Snapshot
from lozo_bench.engine.stored import Kept, in_memory, put
from lozo_bench.engine.subspace import Coordinates, Subspace
from lozo_bench.engine.tangent import slopes
from lozo_bench.engine.tensors import check_weights, on_cpu
from lozo_bench.engine.terms import Extras, LowRankTerm, load_term, save_term


class InPlace:
    """An `Engine` that scores candidates by writing to the weights.

    Weights that are not in the function now (`Extras.off`) are not written to: a direction moves
    only the others.

    Args:
        X: the trainable weights by name.
        model: the model with the parameters X; only `slopes` and the reuse of prefixes need it.
        extras: further tensors that the model's function depends on.
        reuse_prefix: whether layers that the candidates have in common are run once for all.
        keep_z: whether a full-rank Gaussian direction stays in memory for the whole step.
        merges: whether an update and the way back are one pass.
    """

    def __init__(
        self,
        X: Mapping[str, Tensor],
        model: nn.Module | None = None,
        extras: Extras | None = None,
        reuse_prefix: bool = True,
        keep_z: bool = False,
        merges: bool = True,
    ) -> None:
        check_weights(X)
        self._keep_z, self._merges = keep_z, merges
        self.model, self.extras = model, extras or Extras()
        self.X = shown(X, self.extras)
        self._prefix = Prefix(model, X, self.extras, reuse_prefix)
        # Where the weights are, and the weights that were moved there.
        self._away: tuple[Subspace, Coordinates, Mapping[str, Tensor]] | None = None
        self._away_along: tuple[FullRank, float, Mapping[str, Tensor]] | None = None
        self._adapter: tuple[Subspace, Coordinates] | None = None

    def losses(
        self,
        P: Subspace,
        coordinates: Coordinates,
        parts: Sequence[MicroBatch],
        only: Only = None,
        rows: Sequence[int] | None = None,
    ) -> Tensor:
        """See `Engine`. If each example has its own candidates, each costs a pass of the batch.

        The weights move to every candidate, scored or not: each move rounds, and a process that
        skipped one would have other weights than the others.
        """
        if coordinates.s.ndim == 3:
            return self._losses_of_each_example(P, coordinates, parts, only, rows)
        losses, names = unknown_losses(len(coordinates), parts), (*P.U, *P.z)
        scored = range(len(coordinates)) if only is None else only
        short = None
        with self.restored_on_failure():
            for k in range(len(coordinates)):
                self._go(P, coordinates[k])
                if k in scored:
                    short = short or self._shortened(parts, names, len(scored))
                    losses[k] = _run(short)
        return losses

    def full_rank_losses(
        self, z: FullRank, at: Sequence[float], parts: Sequence[MicroBatch], only: Only = None
    ) -> Tensor:
        """See `Engine`."""
        losses, scored = unknown_losses(len(at), parts), range(len(at)) if only is None else only
        short = None
        with self.restored_on_failure():
            for k, c in enumerate(at):
                self._go_along(z, c)
                if k in scored:
                    short = short or self._shortened(parts, self._names(z), len(scored))
                    losses[k] = _run(short)
        return losses

    def slopes(self, v: FullRank, parts: Sequence[MicroBatch]) -> Tensor:
        """See `Engine`."""
        assert self.model is not None, "slopes need the model"
        self.flush()
        return slopes(Sites(self.model, self.X), self.X, v, parts)

    def move(self, P: Subspace, to: Coordinates) -> None:
        """See `Engine`."""
        if not self._merges:
            self.flush()
        self._go(P, to)
        self._away = None

    def full_rank_move(self, z: FullRank, by: float) -> None:
        """See `Engine`."""
        if not self._merges:
            self.flush()
        self._go_along(z, by)
        self._away_along = None

    def set_adapter(self, P: Subspace, at: Coordinates) -> None:
        """See `Engine`."""
        self.flush()
        X = every(self.X)
        if self._adapter is not None:
            before, place = self._adapter
            self._shift(X, before, Coordinates(-place.C, -place.s))
        self._shift(X, P, at)
        self._adapter = (P, at)

    def decay(self, rate: float) -> None:
        """See `Engine`."""
        if rate:
            self.flush()
            self._prefix.changed()
            with torch.no_grad():
                for x in self.X.values():
                    if x.ndim >= 2:
                        x.mul_(1 - rate)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """See `Engine`."""
        self.flush()
        yield

    def flush(self) -> None:
        """See `Engine`."""
        if self._away is not None:
            P, place, X = self._away
            self._shift(X, P, Coordinates(-place.C, -place.s))
        if self._away_along is not None:
            z, c, X = self._away_along
            self._shift_along(X, z, -c)
        self._away = self._away_along = None

    def tensors(self) -> dict[str, Tensor]:
        """See `Engine`."""
        self.flush()
        state = {f"X/{name}": x for name, x in every(self.X).items()}
        if self._adapter is not None:
            P, place = self._adapter
            state |= save_term("attached", LowRankTerm(P.U, P.V, place.C))
        return state | self.extras.state()

    def state(self) -> dict[str, Tensor]:
        """See `Engine`."""
        return on_cpu(self.tensors())

    def snapshot(self, scratch: Path | None = None, spare: Snapshot | None = None) -> Snapshot:
        """See `Engine`. The next step writes to all weights, so all are copied."""
        return Snapshot(self.tensors(), (), scratch, spare)

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Kept]) -> None:
        """See `Engine`."""
        self._prefix.changed()
        self._away = self._away_along = self._adapter = None
        for name, x in every(self.X).items():
            put(x, state[f"X/{name}"])
        others = in_memory(state)
        if (term := load_term("attached", others, every(self.X))) is not None:
            self._adapter = Subspace(term.U, term.V, {}), Coordinates(term.C, term.C.new_zeros(0))
        self.extras.load_state(others)

    def _losses_of_each_example(
        self,
        P: Subspace,
        coordinates: Coordinates,
        parts: Sequence[MicroBatch],
        only: Only,
        rows: Sequence[int] | None,
    ) -> Tensor:
        K, B = coordinates.s.shape[:2]
        losses, names = unknown_losses(K, parts), (*P.U, *P.z)
        row_of = {b: row for row, b in enumerate(range(B) if rows is None else rows)}
        short = None
        with self.restored_on_failure():
            for k in range(K):
                for b in range(B):
                    self._go(P, Coordinates(coordinates.C[k, b], coordinates.s[k, b]))
                    if b in row_of and (only is None or k in only):
                        short = short or self._shortened(parts, names, K * B)
                        losses[k, row_of[b]] = _run(short)[row_of[b]]
        return losses

    def _shortened(
        self, parts: Sequence[MicroBatch], names: Collection[str], candidates: int
    ) -> Sequence[MicroBatch]:
        """See `Prefix.shortened`. The weights are at a candidate; those below it are not moved."""
        return self._prefix.shortened(
            parts, names, candidates, nullcontext, lambda part: _run([part])
        )

    def _names(self, z: FullRank) -> Collection[str]:
        return z.names if isinstance(z, Restricted) else self.X

    @contextmanager
    def restored_on_failure(self) -> Iterator[None]:
        """See `Engine`."""
        try:
            yield
        except BaseException:
            self.flush()
            raise

    def _go(self, P: Subspace, to: Coordinates) -> None:
        """Move the weights, from any point of P or from where they belong, to this point of P."""
        X = now(self.X)
        if self._away is not None and self._away[0] is P and self._away[2] is X:
            self._shift(X, P, to - self._away[1])
        else:
            self.flush()
            self._shift(X, P, to)
        self._away = (P, to, X)

    def _go_along(self, z: FullRank, to: float) -> None:
        if self._keep_z and isinstance(z, Gaussian):
            z.keeps_all = True
        X, away = now(self.X), self._away_along
        if away is not None and away[0] is z and away[2] is X:
            self._shift_along(X, z, to - away[1])
        else:
            self.flush()
            self._shift_along(X, z, to)
        self._away_along = (z, to, X)

    def _shift(self, X: Mapping[str, Tensor], P: Subspace, by: Coordinates) -> None:
        self._prefix.changed((*P.U, *P.z))
        shift(X, P if X is every(self.X) else _within(P, X), by)

    def _shift_along(self, X: Mapping[str, Tensor], z: FullRank, by: float) -> None:
        self._prefix.changed(self._names(z))
        z.move(X, by)


@torch.no_grad()
def shift(X: Mapping[str, Tensor], P: Subspace, by: Coordinates) -> None:
    """Add U C V^T to matrices and z s to vectors, in place."""
    for name, U in P.U.items():
        x = X[name]
        left = (U @ by.C.to(U)).to(x)
        x.flatten(1).addmm_(left, P.V[name].to(x).T)
    for name, z in P.z.items():
        x = X[name]
        x.add_((z @ by.s.to(z)).view(x.shape).to(x))


def _within(P: Subspace, X: Mapping[str, Tensor]) -> Subspace:
    """Return the part of P that moves weights of X."""
    U, z = ({n: x for n, x in factors.items() if n in X} for factors in (P.U, P.z))
    return Subspace(U, P.V, z)


def _run(parts: Sequence[MicroBatch]) -> Tensor:
    with torch.inference_mode():
        none = torch.empty(0, dtype=torch.float64)
        return torch.cat([none, *(on_host(checked_losses(part, 1)[0]) for part in parts)])
