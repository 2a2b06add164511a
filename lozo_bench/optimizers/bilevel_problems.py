"""The problems of a bilevel run: which rows each level of each task has, and its sets of values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lozo_bench.errors import bad_value
from lozo_bench.optimizers.base import Score, Stream

Share = tuple[float, float]
UPPER = "upper"


@dataclass(frozen=True)
class Problem:
    """One task's pair of problems: the numbers of its sets of values, and its streams.

    Without a task's name, the lower rows are those of the steps' own batches.
    """

    task: str
    p: int
    s: int

    @property
    def upper_stream(self) -> str:
        """The name of the stream of upper rows."""
        return f"{UPPER}/{self.task}" if self.task else UPPER

    @property
    def lower_stream(self) -> str:
        """The name of the stream of lower rows."""
        return f"lower/{self.task}"

    def lower(self, score: Score) -> Score:
        """Return the score of the next lower batch."""
        return score.on(self.lower_stream) if self.task else score


def problems_of(tasks: Sequence[str]) -> Iterator[Problem]:
    """Yield the problem of each task, or the only one."""
    if len(tasks) < 2:
        yield Problem("", 0, 1)
        return
    for i, task in enumerate(tasks):
        yield Problem(task, 1 + 2 * i, 2 + 2 * i)


def streams_of(problems: Sequence[Problem], lower: Share, upper: Share) -> dict[str, Stream]:
    """Return the streams beside the steps' own batches, of these shares of each task's rows."""
    streams = {}
    for problem in problems:
        task = problem.task or None
        streams[problem.upper_stream] = Stream(rows=upper, task=task)
        if task:
            streams[problem.lower_stream] = Stream(rows=lower, task=task)
    return streams


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
