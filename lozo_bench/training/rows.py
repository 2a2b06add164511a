"""Which training rows each batch of a run consists of: the steps' own batches and named streams."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice, repeat

from lozo_bench.data.order import permuted, shuffled
from lozo_bench.errors import UserError
from lozo_bench.optimizers.base import Needs, Stream


class TrainingRows:
    """The row numbers of all batches of a run.

    The same arguments give the same batches in every process and after every restart.

    Args:
        count: number of training rows.
        batch_size: the run's; streams that declare no size of their own use it.
        seed: of the run.
        needs: declares the steps' own batches and the named streams.

    Raises:
        UserError: a stream has no rows.
    """

    def __init__(self, count: int, batch_size: int, seed: int, needs: Needs) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
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
        return shuffled_rows

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return (number of rows, rows of a batch) of each stream; the steps' own is named ''."""
        return {name: (len(self._rows(name)), self._batch_size(name)) for name in self.streams}

    def _rows(self, name: str) -> list[int]:
        start, end = self.streams[name].rows
        if (start, end) == (0.0, 1.0):
            return list(range(self.count))
        chosen = permuted(self.count, self.seed, "subsets")
        return sorted(chosen[round(start * self.count) : round(end * self.count)])

    def _batch_size(self, name: str) -> int:
        size = self.streams[name].batch_size
        if size == "all":
            return len(self._rows(name))
        return size or self.batch_size
