"""Low-rank terms of the weights' value, and how they stand in a saved state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from lozo_bench.engine.subspace import Factors


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """U C V^T for each matrix that U names; ``C`` [a, b], or [G, a, b] in G versions."""

    U: Factors
    V: Factors
    C: Tensor


def term_state(where: str, term: Term) -> dict[str, Tensor]:
    """A term under names like ``closed/0/U/lm_head.weight``, ``where`` being closed/0."""
    state = {f"{where}/C": term.C}
    state |= {f"{where}/U/{name}": U for name, U in term.U.items()}
    return state | {f"{where}/V/{name}": V for name, V in term.V.items()}


def term_from(where: str, state: Mapping[str, Tensor], X: Mapping[str, Tensor]) -> Term | None:
    """The term that `term_state` put there, factors beside their weights; None without one.

    It is a copy: what is done to the term does not reach the state.
    """
    own = under(where, state)
    if not own:
        return None
    U, V = (
        {name: factor.to(X[name].device, copy=True) for name, factor in under(kind, own).items()}
        for kind in ("U", "V")
    )
    return Term(U, V, own["C"].clone())


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What stands below a prefix, by the rest of its name."""
    start = f"{prefix}/"
    return {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}
