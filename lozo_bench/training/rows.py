"""Which training rows each batch of a run consists of: the steps' own batches and named streams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice, repeat

from lozo_bench.config.schema import Config, Mix
from lozo_bench.data.order import permuted, shuffled, taking_turns
from lozo_bench.data.sets import Data
from lozo_bench.errors import UserError
from lozo_bench.optimizers.base import Needs, Stream


def training_rows(config: Config, data: Data, needs: Needs) -> TrainingRows:
    """Return the row numbers of a run's batches.

    Raises:
        UserError: a stream has no rows.
    """
    tasks = [row.task for row in data.train] if data.tasks else ()
    size, seed = config.batch_size, config.seed.value
    return TrainingRows(len(data.train), size, seed, needs, tasks, config.task.mix)


class TrainingRows:
    """The row numbers of all batches of a run.

    The same arguments give the same batches in every process and after every restart.

    Args:
        count: number of training rows.
        batch_size: the run's; streams that declare no size of their own use it.
        seed: of the run.
        needs: declares the steps' own batches and the named streams.
        tasks: the task of each row, of a run with several tasks.
        mix: from which tasks the rows of a batch come, in streams of all tasks that are shuffled.

    Raises:
        UserError: a stream has no rows.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        needs: Needs,
        tasks: Sequence[str] = (),
        mix: Mix = Mix.rows,
    ) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.mix = mix
        self.tasks: dict[str, list[int]] = {}
        for i, task in enumerate(tasks):
            self.tasks.setdefault(task, []).append(i)
        self.streams: dict[str, Stream] = {"": needs.batch, **needs.streams}
        for name, stream in self.streams.items():
            if count and not self._rows(name):
                what = f"the stream {name!r}" if name else "the steps' own stream"
                raise UserError(
                    f"optimizer: {what}, which is the share {stream.rows} of {count} training "
                    "rows, has no rows; use more training rows"
                )

    def batches(self, name: str = "") -> Iterator[list[int]]:
        """Return the endless batches of a stream; without a name those of the steps themselves.

        Raises:
            UserError: the method declares no stream of this name.
        """
        if name not in self.streams:
            declared = ", ".join(sorted(self.streams.keys() - {""})) or "none"
            raise UserError(
                f"optimizer: it asks for the stream {name!r}; declared in its needs: {declared}"
            )
        batches, limit = self._endless(name), self.streams[name].limit
        if limit is None:
            return batches
        epoch = -(-len(self._rows(name)) // self._batch_size(name))
        return (list(batch) for batch in cycle(list(islice(batches, min(limit, epoch)))))

    def _endless(self, name: str) -> Iterator[list[int]]:
        stream, rows = self.streams[name], self._rows(name)
        size = self._batch_size(name)
        order = f"order/{name}" if name else "order"
        shuffled_rows = (
            [rows[i] for i in batch] for batch in shuffled(len(rows), size, self.seed, order)
        )
        if stream.batch_size == "all":
            return repeat(next(shuffled_rows))
        if stream.order == "fixed":
            chunks = [rows[start : start + size] for start in range(0, len(rows), size)]
            return (list(chunk) for epoch in repeat(chunks) for chunk in epoch)
        if self.mix is not Mix.rows and self.tasks and stream.task is None:
            shares = {task: self._share(name, task) for task in self.tasks}
            each = size if self.mix is Mix.turns else 1
            return taking_turns(shares, size, self.seed, each, order)
        return shuffled_rows

    @property
    def mixed(self) -> bool:
        """Whether ``mix`` changes a batch: it does not if a method asks for rows of each task."""
        named = [stream for name, stream in self.streams.items() if name]
        return not named or any(stream.task is None for stream in named)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return (number of rows, rows of a batch) of each stream; the steps' own is named ''."""
        return {name: (len(self._rows(name)), self._batch_size(name)) for name in self.streams}

    def _rows(self, name: str) -> list[int]:
        """Return the rows of a stream: its share of each task's rows, or of all."""
        task = self.streams[name].task
        if not self.tasks and task is None:
            return self._share(name)
        chosen = list(self.tasks) if task is None else [task]
        return sorted(row for each in chosen for row in self._share(name, each))

    def _share(self, name: str, task: str = "") -> list[int]:
        start, end = self.streams[name].rows
        rows: Sequence[int] = self._of_task(task)
        if (start, end) == (0.0, 1.0):
            return list(rows)
        chosen = permuted(len(rows), self.seed, "subsets", task)
        return sorted(rows[i] for i in chosen[round(start * len(rows)) : round(end * len(rows))])

    def _of_task(self, task: str) -> Sequence[int]:
        if not self.tasks and not task:
            return range(self.count)
        if task not in self.tasks:
            trained = ", ".join(self.tasks) or "a single task, which has no name"
            raise UserError(
                f"optimizer: it asks for rows of the task {task!r}; the run trains {trained}; "
                "what to do: choose the tasks with task=[rte,sst2]"
            )
        return self.tasks[task]

    def _batch_size(self, name: str) -> int:
        size = self.streams[name].batch_size
        if size == "all":
            return len(self._rows(name))
        return size or self.batch_size
