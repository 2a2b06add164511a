"""What an optimizer sees of the model during one step: losses on batches of training rows.

Every answer that an optimizer gets is recorded in `Score.answers`. A `Score` that is given the
recorded answers returns them instead of running the model, so the same optimizer makes the same
step again. This is how a run is resumed, and how a process that joins later catches up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from lozo_bench.engine.backward import backward
from lozo_bench.engine.finite import STOPPED, bounded, raise_if_stopped, require_finite
from lozo_bench.engine.protocol import (
    DropoutContext,
    Engine,
    FullRank,
    Losses,
    MicroBatch,
    Only,
    ScoredBatch,
)
from lozo_bench.engine.sharing import ALONE, Sharing
from lozo_bench.engine.spread import hidden_spread
from lozo_bench.engine.subspace import Coordinates, Subspace, along, stacked
from lozo_bench.errors import Stopped, UserError


class AskAt(Protocol):
    """Returns losses [K, rows] of candidates whose distances are multiplied by ``by``."""

    def __call__(self, only: Only, by: float = 1.0) -> Tensor:
        """Return the losses; those of candidates that are not in ``only`` are NaN."""
        ...


# Micro-batches of the n-th stream batch of a step are numbered from n times this.
_STREAM_PARTS = 2**32


@dataclass(frozen=True, slots=True)
class FirstCandidates:
    """The candidates that a step asked for first: their losses, and the same ones farther away.

    Args:
        losses: their mean losses.
        farther: returns this process's mean losses of them, with all their distances from the
            weights multiplied by a factor. Nothing is recorded. Moving weights in place rounds.
    """

    losses: Sequence[float]
    farther: Callable[[float], list[float]]


class Score:
    """The model's loss on the batch of one step.

    Args:
        engine: holds the weights.
        parts: the batch, or this process's examples of it, in micro-batches.
        order: which example of this process's share each row of the parts is; None: in order.
        sharing: divides the work among processes.
        examples: how many examples the whole batch has; None: those in the parts.
        recorded: the losses that were recorded when this step was first made, with those of
            streams; the model is then not run.
        check: called before each pass through the model; raises Stopped to stop the run.
        dropout: the dropout context that a micro-batch is differentiated in. It is given a number
            that no other micro-batch of the step has in any process.
        streams: returns the next batch of a named stream.
        tokens: how many tokens the whole batch has.
    """

    def __init__(
        self,
        engine: Engine,
        parts: Sequence[MicroBatch],
        *,
        order: Sequence[int] | None = None,
        sharing: Sharing = ALONE,
        examples: int | None = None,
        recorded: Sequence[Tensor] | None = None,
        check: Callable[[], None] = lambda: None,
        dropout: DropoutContext = lambda part: nullcontext(),
        streams: Callable[[str], ScoredBatch] | None = None,
        tokens: int = 0,
    ) -> None:
        here = sum(part.size for part in parts)
        self.engine, self.sharing, self.tokens = engine, sharing, tokens
        self.parts = [replace(part, losses=_checking(check, part.losses)) for part in parts]
        self.order = list(range(here) if order is None else order)
        self.examples = here if examples is None else examples
        self.answers: list[Tensor] = []
        self.of_streams: list[Score] = []
        self.forwards = self.backwards = 0
        self.failed_candidates = 0
        # The step's first candidates, to be scored again at other distances from the weights.
        self.first: FirstCandidates | None = None
        self._check, self._dropout, self._streams = check, dropout, streams
        self._recorded = None if recorded is None else list(recorded)
        self._exact = any(x.dtype == torch.float64 for x in engine.X.values())

    def on(self, name: str) -> Score:
        """Return the score of the next batch of a stream that the method's ``needs`` declare.

        Each call takes a further batch. Losses of all streams are recorded in the order in which
        they are asked for, together with those of the step's own batch.

        Raises:
            UserError: the method declares no stream of this name.
        """
        if self._streams is None:
            raise UserError(
                f"optimizer: it asks for the stream {name!r}; declare it in needs = "
                f"Needs(..., streams={{{name!r}: Stream()}})"
            )
        batch = self._streams(name)
        first = _STREAM_PARTS * (len(self.of_streams) + 1)
        dropout = self._dropout
        child = Score(
            self.engine,
            batch.parts,
            order=batch.order,
            sharing=self.sharing,
            examples=batch.examples,
            check=self._check,
            dropout=lambda part: dropout(first + part),
            streams=_no_streams,
            tokens=batch.tokens,
        )
        child.answers, child._recorded = self.answers, self._recorded
        self.of_streams.append(child)
        return child

    def __call__(
        self, P: Subspace, at: Sequence[float] | Coordinates, *, finite: bool = True
    ) -> list[float]:
        """Return the losses at points of P: c U V^T, c z for each number c, or each of [K] points.

        Args:
            P: the subspace.
            at: numbers c, or points.
            finite: whether a loss that is not finite ends the step. If False, such a candidate's
                loss is inf and the others count; only if no loss is finite the step ends.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite.
            Stopped: the run was asked to stop; nothing has changed.
        """
        coordinates = at if isinstance(at, Coordinates) else stacked([along(P, c) for c in at])
        K, engine, parts = len(coordinates), self.engine, self.parts

        # This object refers to the function (``first``). If the function referred to this object
        # too, the directions of many steps would stay in memory until Python's garbage collector
        # finds these reference cycles.
        def ask(only: Only, by: float = 1.0) -> Tensor:
            there = coordinates if by == 1.0 else coordinates * by
            return engine.losses(P, there, parts, only)

        return self._means(K, ask, finite)

    def full_rank(self, z: FullRank, at: Sequence[float], *, finite: bool = True) -> list[float]:
        """Return the losses at c z for each c; ``finite`` as for low-rank candidates.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite.
            Stopped: the run was asked to stop; nothing has changed.
        """
        engine, parts = self.engine, self.parts

        def ask(only: Only, by: float = 1.0) -> Tensor:
            return engine.full_rank_losses(z, [by * c for c in at], parts, only)

        return self._means(len(at), ask, finite)

    def slope(self, v: FullRank) -> tuple[float, float]:
        """Return the loss at the weights and its derivative along v.

        Raises:
            NonFiniteLossError: one of them is NaN or infinite.
            Stopped: the run was asked to stop; nothing has changed.
        """

        def shared() -> Tensor:
            found = self._asked(2, lambda only: self.engine.slopes(v, self.parts))
            return self._rounded(self.sharing.means(found, self.examples))

        self.forwards += 1
        loss, slope = self._numbers(shared)
        return loss, slope

    def recorded_mean(self, find: Callable[[], Tensor]) -> list[float]:
        """Record numbers that every process computes at the weights, and return their mean.

        They are recorded like losses: a replay on another device uses the original values.

        Raises:
            NonFiniteLossError: one of them is NaN or infinite.
            Stopped: the run was asked to stop; nothing has changed.
        """

        def shared() -> Tensor:
            with self.engine.applied():
                found = bounded(find().to("cpu", torch.float64))
            total = self.sharing.totals(torch.cat([found, torch.ones(1, dtype=torch.float64)]))
            return self._rounded(total[:-1] / total[-1])

        return self._numbers(shared)

    def hidden_spread(
        self, *, padding: bool = False, clip: float = 3.0, rounds: int = 5
    ) -> list[float]:
        """Return the standard deviation of the word embeddings and of what enters each later layer.

        There is one number for each of L layers. The first is that of the embedding matrix. The
        others are those of the hidden states that enter the second to the last layer, at the
        weights, over all rows of the batch. They are recorded like losses.

        Args:
            padding: whether positions that are padding count.
            clip: the largest distance from the mean, in standard deviations.
            rounds: how often hidden states that are farther away are moved to that distance. The
                standard deviation after the last round counts.

        Raises:
            UserError: the model has no stack of layers.
            NonFiniteLossError: one of the numbers is NaN or infinite.
            Stopped: the run was asked to stop; nothing has changed.
        """

        def shared() -> Tensor:
            model = self.engine.model
            assert model is not None, "a function that is no model has no hidden states"
            with self.engine.applied(), torch.inference_mode():
                totals = self.sharing.totals
                found = hidden_spread(model, self.parts, totals, padding, clip, rounds)
            return self._rounded(found)

        self.forwards += rounds + 1
        return self._numbers(shared)

    def of_each_example(self, P: Subspace, coordinates: Coordinates) -> Tensor:
        """Return losses [K, B], float64 on the CPU, at [K, B] points: each example has its own.

        Raises:
            NonFiniteLossError: one of the losses is NaN or infinite.
            Stopped: the run was asked to stop; nothing has changed.
        """
        K, mine = len(coordinates), self.sharing.examples(self.examples)
        rows = [mine[i] for i in self.order]

        def ask(only: Only) -> Tensor:
            return self.engine.losses(P, coordinates, self.parts, only, rows)

        def shared() -> Tensor:
            losses = self._asked(K, ask)
            in_order = torch.empty_like(losses)
            in_order[:, self.order] = losses
            return self.sharing.each(self._rounded(in_order), self.examples)

        self.forwards += K
        with self.engine.restored_on_failure():
            if self._recorded is not None:
                ask(())
            return require_finite(self.answer(shared))

    def differentiate(self, scale: float = 1.0) -> float:
        """Return the batch's mean loss and leave ``scale`` times its gradient in ``grad``.

        The micro-batches go forward and back one after another, see `backward`.

        Raises:
            NonFiniteLossError: the loss is NaN or infinite.
            Stopped: the run was asked to stop.
        """
        assert self._recorded is None, "a step that differentiates is not made from records"
        for x in self.engine.X.values():
            x.grad = None
        self.forwards, self.backwards = self.forwards + 1, self.backwards + 1
        mean = backward(self.parts, self.examples, self.sharing, self._dropout, scale)
        return float(require_finite(mean[:, None]))

    def features(self) -> tuple[Tensor, Tensor]:
        """Return the output layer's input before each answer token [N, d], and the tokens [N].

        Raises:
            Stopped: the run was asked to stop.
        """
        seen = []
        self.forwards += 1
        for part in self.parts:
            assert part.features is not None, "the objective gives none"
            self._check()
            seen.append(part.features())
        return torch.cat([x for x, _ in seen]), torch.cat([tokens for _, tokens in seen])

    def answer(self, ask: Callable[[], Tensor]) -> Tensor:
        """Return the next recorded answer of the step, or compute and record it. Float64."""
        if self._recorded is not None:
            answer = self._recorded.pop(0)
        else:
            answer = ask()
            raise_if_stopped(answer)
        self.answers.append(answer)
        return answer.double()

    def _numbers(self, ask: Callable[[], Tensor]) -> list[float]:
        """Return the next answer, which must be finite, as numbers."""
        numbers: list[float] = require_finite(self.answer(ask)[:, None]).flatten().tolist()
        return numbers

    def _means(self, K: int, ask: AskAt, finite: bool) -> list[float]:
        """Return mean losses of K candidates over the whole batch.

        They are recorded as the first mean and the differences of the others from it, each as one
        float32: the slope computed from them keeps all its digits in 4 bytes a candidate. If losses
        need not be ``finite``, the means themselves are recorded.
        """

        def shared() -> Tensor:
            means = self.sharing.means(self._asked(K, ask), self.examples, finite)
            first = self._rounded(means[:1])
            return torch.cat([first, self._rounded(means[1:] - _base(first, finite))])

        self.forwards += K
        with self.engine.restored_on_failure():
            if self._recorded is not None:
                ask(())
            first_and_differences = self.answer(shared)
            means = first_and_differences.clone()
            means[1:] += _base(means[:1], finite)
            failed = ~means.isfinite()
            if finite or failed.all():
                require_finite(means[:, None])
            losses: list[float] = means.masked_fill(failed, math.inf).tolist()
        if not finite:
            self.failed_candidates += int(failed.sum())
            return losses
        if self.first is None:
            self.first = FirstCandidates(losses, lambda by: ask(None, by).mean(1).tolist())
        return losses

    def _asked(self, K: int, ask: Callable[[Only], Tensor]) -> Tensor:
        try:
            self._check()
            return bounded(ask(self.sharing.candidates(K)))
        except Stopped:
            return torch.full((K, len(self.order)), STOPPED, dtype=torch.float64)

    def _rounded(self, losses: Tensor) -> Tensor:
        # Losses of float32 and half-precision models are float32: a single loss loses nothing, and
        # a mean no more than its terms.
        return losses if self._exact else losses.float()


def _checking(check: Callable[[], None], losses: Losses) -> Losses:
    def checked_losses(copies: int) -> Tensor:
        check()
        return losses(copies)

    return checked_losses


def _no_streams(name: str) -> ScoredBatch:
    raise UserError(f"optimizer: ask for the stream {name!r} on the step's own score")


def _base(first: Tensor, finite: bool) -> Tensor:
    """Return what the other means are recorded relative to.

    That is the first one, whose difference from them is a slope. In a population of unrelated
    candidates, of which the first may have a huge loss, it is 0.
    """
    return first.double() if finite else torch.zeros_like(first, dtype=torch.float64)
