"""From row numbers to the micro-batches that one process scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lozo_bench.data.order import micro_batches
from lozo_bench.data.sets import Data
from lozo_bench.engine.protocol import ScoredBatch
from lozo_bench.engine.sharing import ALONE, Sharing
from lozo_bench.objectives.losses import Objective
from lozo_bench.tasks.base import Encoded
from lozo_bench.training.rows import TrainingRows


class Batcher:
    """Prepares this process's share of a batch.

    Args:
        data: the training rows as tokens, and how they become batches.
        objective: makes micro-batches of them.
        micro_batch_size: the largest number of examples in a micro-batch; None: no limit.
        sharing: divides a batch among processes.
    """

    def __init__(
        self,
        data: Data,
        objective: Objective,
        micro_batch_size: int | None,
        sharing: Sharing = ALONE,
    ) -> None:
        self.data, self.objective = data, objective
        self.micro_batch_size, self.sharing = micro_batch_size, sharing
        self._rows = object()  # tells these rows from those of another batcher

    def batch(self, numbers: Sequence[int]) -> ScoredBatch:
        """Return the batch of these training rows, in micro-batches of similar length."""
        batch = [self.data.train[i] for i in numbers]
        shares = self.data.shares(batch)
        mine = list(self.sharing.examples(len(batch)))
        groups = self._groups([batch[i] for i in mine])
        prepared = [
            self.objective.prepare(
                [batch[mine[i]] for i in group],
                None if shares is None else [shares[mine[i]] for i in group],
            )
            for group in groups
        ]
        tokens = sum(each.tokens for each in prepared)
        if len(mine) < len(batch):
            tokens = sum(
                self.objective.tokens([batch[i] for i in group]) for group in self._groups(batch)
            )
        return ScoredBatch(
            parts=[
                replace(each.micro_batch, key=(self._rows, *(numbers[mine[i]] for i in group)))
                for each, group in zip(prepared, groups, strict=True)
            ],
            order=[i for group in groups for i in group],
            examples=len(batch),
            tokens=tokens,
        )

    def _groups(self, examples: Sequence[Encoded]) -> list[list[int]]:
        return [
            [alike[i] for i in group]
            for alike in self.data.alike(examples)
            for group in micro_batches(
                [examples[i] for i in alike], self.data.layout, self.micro_batch_size
            )
        ]


class StreamBatches:
    """The row numbers of named streams, and how many batches of each were taken.

    Args:
        rows: which rows each batch of each stream has.
    """

    def __init__(self, rows: TrainingRows) -> None:
        self._rows = rows
        self._open: dict[str, Iterator[list[int]]] = {}
        self.taken: dict[str, int] = {}

    def next(self, name: str) -> list[int]:
        """Return the row numbers of the stream's next batch.

        Raises:
            UserError: there is no such stream.
        """
        if name not in self._open:
            self._open[name] = self._rows.batches(name)
        self.taken[name] = self.taken.get(name, 0) + 1
        return next(self._open[name])

    def go_to(self, taken: dict[str, int]) -> None:
        """Continue after so many batches of each stream."""
        self._open, self.taken = {}, {}
        for name, count in taken.items():
            for _ in range(count):
                self.next(name)
