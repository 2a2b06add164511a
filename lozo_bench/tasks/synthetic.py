"""The built-in tasks: rows of synthetic English, generated from a seed."""

from __future__ import annotations

from itertools import islice

from lozo_bench.errors import bad_value
from lozo_bench.tasks import grammar
from lozo_bench.tasks.base import Example, Splits


class Synthetic:
    """The rows of a task of the synthetic grammar.

    The classes have equally many rows; if the number is not divisible, the first classes have one
    row more. No sentence is in two of the sets or in the data on which the tiny models were
    pre-trained (`grammar.split_of`).

    Args:
        task: The name of the task in the grammar.
        train: The number of train rows.
        dev: The number of dev rows.
        test: The number of test rows.
        seed: Seed of the train and dev rows. The test rows are the same for every seed.

    Raises:
        UserError: There is no such task, a number of rows is smaller than the number of classes, or
            the seed is negative.
    """

    def __init__(self, task: str, train: int, dev: int, test: int, seed: int) -> None:
        if task not in grammar.CLASSES:
            raise bad_value("task", task, ", ".join(grammar.CLASSES))
        classes = grammar.CLASSES[task]
        counts = {"train": train, "dev": dev, "test": test}
        for name, count in counts.items():
            if count < classes:
                raise bad_value(name, count, f"at least {classes}, which is one row per class")
        if seed < 0:
            raise bad_value("seed", seed, "a whole number >= 0")
        self._task = task
        self._counts = counts
        self._seed = seed

    def splits(self) -> Splits:
        """Return the rows. The labels alternate, so the first rows of a set are balanced too."""
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
