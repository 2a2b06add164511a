"""The objective of a run with several tasks: that of each micro-batch's own task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lozo_bench.objectives.losses import Objective, PreparedMicroBatch
from lozo_bench.tasks.base import Encoded


class ObjectiveByTask:
    """Prepares each micro-batch with the objective of its rows' task.

    Args:
        by_task: the objective of each task by its name. Tasks whose rows share micro-batches have
            the same one.
    """

    def __init__(self, by_task: Mapping[str, Objective]) -> None:
        self.by_task = by_task

    def prepare(
        self, examples: Sequence[Encoded], weights: Sequence[float] | None
    ) -> PreparedMicroBatch:
        """See `Objective`."""
        return self.by_task[examples[0].task].prepare(examples, weights)

    def tokens(self, examples: Sequence[Encoded]) -> int:
        """See `Objective`."""
        return self.by_task[examples[0].task].tokens(examples)
