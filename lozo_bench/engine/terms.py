"""Low-rank terms U C V^T that are added to the weights, and their format in a saved state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from lozo_bench.engine.subspace import Factors
from lozo_bench.errors import UserError

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, eq=False)
class LowRankTerm:
    """A low-rank term U C V^T of each matrix whose name is in U.

    Attributes:
        U: left factors [m, a], by name of the matrix.
        V: right factors [n, b], by name of the matrix.
        C: the core [a, b] that all matrices share; [G, a, b] if it differs between G candidates.
        joined: the left factors as one tensor, of which those in U are parts (see `rows.py`); None
            if each has memory of its own.
    """

    U: Factors
    V: Factors
    C: Tensor
    joined: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Extras:
    """Tensors besides X that the model's function depends on, such as gates of its modules.

    An engine saves, fingerprints and restores them with the weights.

    Args:
        tensors: by name; the model reads these very tensors, and they are changed in place.
        apply: called after they were restored, if the model has to react.
        off: returns the names of the weights of X that are not in the function now: the very same
            set until it changes.
        off_parts: returns which part of a weight of X is not in the function now, by its name.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    apply: Callable[[], None] = lambda: None
    off: Callable[[], frozenset[str]] = frozenset
    off_parts: Callable[[], Mapping[str, tuple[slice, ...]]] = dict

    def state(self) -> dict[str, Tensor]:
        """Return the tensors under names like ``extra/gate``."""
        return {f"extra/{name}": x for name, x in self.tensors.items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the tensors in place.

        Raises:
            UserError: the state has other names than these.
        """
        saved = with_prefix("extra", state)
        if saved.keys() != self.tensors.keys():
            raise UserError(
                f"the checkpoint holds the extra tensors {', '.join(saved) or 'none'}, and this "
                f"model has {', '.join(self.tensors) or 'none'}; run again with rerun=all"
            )
        for name, x in self.tensors.items():
            x.copy_(saved[name])
        self.apply()


# How often the factors U and V of each matrix had been written to.
Stamp = Mapping[str, tuple[int, int]]


def stamp(term: LowRankTerm) -> Stamp:
    """Return how often the term's factors were written to; without those that do not tell."""
    return {
        name: (U._version, V._version)
        for name, U in term.U.items()
        if not (U.is_inference() or (V := term.V[name]).is_inference())
    }


def different(before: LowRankTerm | None, then: Stamp, after: LowRankTerm) -> set[str]:
    """Return the matrices for which a term differs from the one before it.

    Args:
        before: the term before; None: there was none.
        then: its stamp from the time at which it was set. A factor that was written to since is
            not what it was.
        after: the term after it.
    """
    if before is None:
        return set(after.U)
    now = stamp(before)
    kept = {
        name
        for name in (before.U.keys() & after.U.keys() if _equal(before.C, after.C) else ())
        if name in now
        and now[name] == then.get(name)
        and _equal(before.U[name], after.U[name])
        and _equal(before.V[name], after.V[name])
    }
    return (before.U.keys() | after.U.keys()) - kept


def _equal(one: Tensor, other: Tensor) -> bool:
    return one is other or (one.device == other.device and torch.equal(one, other))


def save_term(where: str, term: LowRankTerm) -> dict[str, Tensor]:
    """Return a term's tensors by names such as ``closed/0/U/lm_head.weight``, where=closed/0."""
    state = {f"{where}/C": term.C}
    state |= {f"{where}/U/{name}": U for name, U in term.U.items()}
    return state | {f"{where}/V/{name}": V for name, V in term.V.items()}


def load_term(
    where: str, state: Mapping[str, Tensor], X: Mapping[str, Tensor]
) -> LowRankTerm | None:
    """Return the term that `save_term` saved below ``where``, or None if there is none.

    The tensors are copies, so changing the term does not change the state. Each factor is on the
    device of its weight in X.
    """
    own = with_prefix(where, state)
    if not own:
        return None
    U, V = (
        {
            name: factor.to(X[name].device, copy=True)
            for name, factor in with_prefix(kind, own).items()
        }
        for kind in ("U", "V")
    )
    return LowRankTerm(U, V, own["C"].clone())


def with_prefix(prefix: str, state: Mapping[str, _T]) -> dict[str, _T]:
    """Return the entries whose names start with ``prefix/``, by the rest of the name."""
    start = f"{prefix}/"
    return {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}
