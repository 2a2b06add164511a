"""The losses of several batches at the same candidates.

In a step like Bilevel-ZOFO's, the loss of a candidate is a combination of mean losses of several
batches, some of them with other values of an adapter. All batches are scored where the weights are
at a candidate, one after another: equal batches with equal adapters have equal losses to the last
bit. Differences of the mean losses are therefore taken in float64 and not of rounded means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lozo_bench.engine.finite import STOPPED, bounded, require_finite
from lozo_bench.engine.protocol import FullRank, Losses, MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.engine.subspace import Subspace, along, stacked
from lozo_bench.errors import Stopped


@dataclass(frozen=True, slots=True)
class Term:
    """One of the mean losses.

    Args:
        batch: whose rows.
        before: called before each of its micro-batches, such as to put other values into an
            adapter.
    """

    batch: Score
    before: Callable[[], None]


def losses_together(
    terms: Sequence[Term], direction: Subspace | FullRank, at: Sequence[float]
) -> Tensor:
    """Return the mean loss of each term at each point of a direction, float64 [K, terms].

    They are recorded as one answer of the step. Each term costs K forward passes over its batch.

    Args:
        terms: at least one; all of the same step.
        direction: of full rank, or a subspace.
        at: the K distances from the weights along the direction.

    Raises:
        NonFiniteLossError: a mean loss is NaN or infinite.
        Stopped: the run was asked to stop; nothing has changed.
    """
    first, K = terms[0].batch, len(at)
    engine, sharing = first.engine, first.sharing
    parts = [_after(term.before, part) for term in terms for part in term.batch.parts]
    sizes = [sum(part.size for part in term.batch.parts) for term in terms]

    def shared() -> Tensor:
        try:
            only = sharing.candidates(K)
            if isinstance(direction, Subspace):
                there = stacked([along(direction, c) for c in at])
                losses = engine.losses(direction, there, parts, only)
            else:
                losses = engine.full_rank_losses(direction, at, parts, only)
            losses = bounded(losses)
        except Stopped:
            losses = torch.full((K, sum(sizes)), STOPPED, dtype=torch.float64)
        of_terms = zip(terms, torch.split(losses, sizes, dim=1), strict=True)
        means = [sharing.means(own, term.batch.examples) for term, own in of_terms]
        return torch.stack(means, dim=1).flatten()

    for term in terms:
        term.batch.forwards += K
    with engine.restored_on_failure():
        found = first.answer(shared)
        return require_finite(found.view(-1, 1)).view(K, len(terms))


def _after(before: Callable[[], None], part: MicroBatch) -> MicroBatch:
    """Return a micro-batch whose losses are computed after a call of ``before``.

    It has no key: what is computed from its rows depends on more than the weights.
    """

    def losses(copies: int, losses: Losses = part.losses) -> Tensor:
        before()
        return losses(copies)

    return replace(part, losses=losses, key=None, inputs=None)
