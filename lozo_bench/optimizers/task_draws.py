"""Which of several tasks a step is about, and the streams of their rows."""

from __future__ import annotations

from dataclasses import dataclass

from lozo_bench.errors import bad_value
from lozo_bench.optimizers.base import Stream
from lozo_bench.randomness.draws import Draws


@dataclass(frozen=True)
class TaskDraws:
    """Which tasks a step has: so many of all, each equally likely, without replacement.

    They are in the order of all tasks.

    Args:
        draws: source of the choice.
        tasks: the names of all; empty: the run has a single task.
        per_step: how many a step has.

    Raises:
        BadValueError: there are not so many tasks.
    """

    draws: Draws
    tasks: tuple[str, ...]
    per_step: int

    def __post_init__(self) -> None:
        if not 1 <= self.per_step <= max(1, len(self.tasks)):
            allowed = f"from 1 to {max(1, len(self.tasks))}, the number of tasks that are trained"
            raise bad_value("tasks_per_step", self.per_step, allowed)

    def of(self, step: int) -> list[str]:
        """Return the names of a step's tasks; that of a single one is empty."""
        if not self.tasks:
            return [""]
        order = self.draws.uniform_range("tasks", step, "", 0, len(self.tasks)).argsort()
        return [self.tasks[i] for i in sorted(order[: self.per_step].tolist())]

    def streams(self, role: str, rows: tuple[float, float]) -> dict[str, Stream]:
        """Return a stream of this share of the rows of each task."""
        return {
            stream_of(role, task): Stream(rows=rows, task=task or None)
            for task in self.tasks or ("",)
        }


def stream_of(role: str, task: str) -> str:
    """Return the name of a stream of a task's rows: ROLE/TASK, or the role if there is one task."""
    return f"{role}/{task}" if task else role
