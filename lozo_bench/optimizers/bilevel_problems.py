"""The problems of a bilevel run: which rows each level of each task has, and its sets of values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lozo_bench.errors import bad_value
from lozo_bench.optimizers.base import Score
from lozo_bench.optimizers.task_draws import stream_of

Share = tuple[float, float]
UPPER, LOWER = "upper", "lower"


@dataclass(frozen=True)
class Problem:
    """One task's pair of problems, and the numbers of its sets of values p and s.

    Without a task's name, the lower rows are those of the steps' own batches.
    """

    task: str
    p: int
    s: int

    def upper(self, score: Score) -> Score:
        """Return the score of the next upper batch."""
        return score.on(stream_of(UPPER, self.task))

    def lower(self, score: Score) -> Score:
        """Return the score of the next lower batch."""
        return score.on(stream_of(LOWER, self.task)) if self.task else score


def problems_of(tasks: Sequence[str]) -> dict[str, Problem]:
    """Return the problem of each task by its name; that of a run's only task has no name."""
    if not tasks:
        return {"": Problem("", 0, 1)}
    return {task: Problem(task, 1 + 2 * i, 2 + 2 * i) for i, task in enumerate(tasks)}


def lower_rows(upper_rows: float | None) -> Share:
    """Return the shares between which the lower problem's rows are.

    Raises:
        BadValueError: ``upper_rows`` is not a share.
    """
    if upper_rows is None:
        return 0.0, 1.0
    if not 0 < upper_rows < 1:
        raise bad_value("upper_rows", upper_rows, "a number between 0 and 1, or null")
    return 0.0, 1 - upper_rows


def upper_rows_of(upper_rows: float | None) -> Share:
    """Return the shares between which the upper problem's rows are."""
    return (0.0, 1.0) if upper_rows is None else (1 - upper_rows, 1.0)
