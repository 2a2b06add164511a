"""The built-in tasks: rows of synthetic English, made on the spot from a seed."""

from __future__ import annotations

from itertools import islice

from lozo_bench.errors import bad_value
from lozo_bench.tasks import grammar
from lozo_bench.tasks.base import Example, Splits


class Synthetic:
    """A task of the synthetic grammar as a `Source`.

    ``train``, ``dev`` and ``test`` count rows, shared equally among the classes; what a division
    leaves over goes to the first ones. The test rows are the same whatever the seed; train and dev
    rows follow it. No sentence is in two of the sets, nor in what the tiny models were pre-trained
    on (`grammar.split_of`).

    Raises UserError when the task has no such name, a count is below its number of classes, or the
    seed is negative.
    """

    def __init__(self, task: str, train: int, dev: int, test: int, seed: int) -> None:
        if task not in grammar.CLASSES:
            raise bad_value("task", task, ", ".join(grammar.CLASSES))
        classes = grammar.CLASSES[task]
        counts = {"train": train, "dev": dev, "test": test}
        for name, count in counts.items():
            if count < classes:
                raise bad_value(name, count, f"at least {classes}, one row per class")
        if seed < 0:
            raise bad_value("seed", seed, "a whole number >= 0")
        self._task = task
        self._counts = counts
        self._seed = seed

    def splits(self) -> Splits:
        """Balanced rows; labels take turns, so any prefix is balanced too."""
        seeded = f"seed {self._seed}"
        return Splits(
            train=self._rows("train", seeded),
            dev=self._rows("dev", seeded),
            test=self._rows("test", "fixed"),
        )

    def _rows(self, split: str, key: str) -> list[Example]:
        drawn = islice(grammar.examples(self._task, split, key), self._counts[split])
        return [
            Example(row.fields, row.label, where=f"{self._task}:{split}:{number}")
            for number, row in enumerate(drawn, start=1)
        ]
