"""What a run costs: passes, rows and tokens of its steps, and the time that they take."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from statistics import median

from lozo_bench.engine.score import Score
from lozo_bench.optimizers.base import Report


@dataclass(slots=True)
class Spent:
    """What the steps so far cost, in all processes together; evaluations are not included.

    ``queries`` are examples times forward passes, ``backward_queries`` examples times backward
    passes. ``tokens`` went forward through the model and ``backward_tokens`` backward.
    ``bad_steps`` were skipped because a loss was not finite, and ``bad_candidates`` had such a loss
    without ending their step. ``sittings`` counts the attempts in which the run was made.
    ``train_s`` are the seconds of the steps, ``elapsed_s`` those of everything.
    """

    forwards: int = 0
    backwards: int = 0
    examples: int = 0
    queries: int = 0
    tokens: int = 0
    backward_tokens: int = 0
    bad_steps: int = 0
    bad_in_a_row: int = 0
    sittings: int = 1
    train_s: float = 0.0
    elapsed_s: float = 0.0
    bad_candidates: int = 0
    backward_queries: int = 0

    def add_passes(self, forwards: int, backwards: int, examples: int, tokens: int) -> None:
        """Count passes over a batch of so many examples and tokens."""
        self.forwards += forwards
        self.backwards += backwards
        self.queries += examples * forwards
        self.backward_queries += examples * backwards
        self.tokens += tokens * forwards
        self.backward_tokens += tokens * backwards


class Costs:
    """Counts what a run costs, from the moment at which this is made.

    Attributes:
        spent: the costs of the steps so far, with those of earlier attempts.
    """

    def __init__(self) -> None:
        self.spent = Spent()
        self._step_seconds: list[float] = []  # of this attempt
        self._elapsed_before = 0.0
        self._began = time.perf_counter()

    def continue_from(self, before: Mapping[str, float]) -> None:
        """Continue counting from what earlier attempts spent; empty: there were none."""
        if not before:
            return
        for field in fields(self.spent):
            kind = type(getattr(self.spent, field.name))
            setattr(self.spent, field.name, kind(before.get(field.name, 0)))
        self.spent.sittings += 1
        self._elapsed_before = self.spent.elapsed_s

    def add_step(self, score: Score, report: Report, seconds: float) -> None:
        """Count a step that was made, with the batches of its streams."""
        self._step_seconds.append(seconds)
        spent = self.spent
        spent.train_s += seconds
        spent.bad_in_a_row = 0
        if report.forwards or report.backwards:
            spent.examples += score.examples
        spent.add_passes(report.forwards, report.backwards, score.examples, score.tokens)
        for stream in score.of_streams:
            spent.examples += stream.examples
            spent.add_passes(stream.forwards, stream.backwards, stream.examples, stream.tokens)
        spent.bad_candidates += failed_candidates(score)

    def add_skipped_step(self) -> None:
        """Count a step in which a loss was not finite."""
        self.spent.bad_steps += 1
        self.spent.bad_in_a_row += 1

    def elapsed(self) -> float:
        """Return the seconds of everything so far, in all attempts."""
        return self._elapsed_before + time.perf_counter() - self._began

    def step_ms_median(self) -> float | None:
        """Return the median time of the steps of this attempt; None if it made none."""
        return 1000 * median(self._step_seconds) if self._step_seconds else None

    def for_curves(self) -> dict[str, float]:
        """Return the numbers by which a curve can be drawn, other than steps."""
        return {
            "forward_passes": self.spent.forwards,
            "backward_passes": self.spent.backwards,
            "queries": self.spent.queries,
            "tokens": self.spent.tokens,
            "elapsed_s": round(self.elapsed(), 3),
        }

    def for_history(self) -> dict[str, float]:
        """Return what `continue_from` takes in the next attempt."""
        self.spent.elapsed_s = round(self.elapsed(), 1)
        costs = asdict(self.spent)
        for rare in ("bad_candidates", "backward_queries"):  # most methods cannot have any
            if not costs[rare]:
                del costs[rare]
        return costs


def failed_candidates(score: Score) -> int:
    """Return how many candidates of a step had a loss that is not finite."""
    return sum(each.failed_candidates for each in (score, *score.of_streams))
