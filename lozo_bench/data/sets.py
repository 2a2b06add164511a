"""The rows of a run as tokens."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from lozo_bench.data.batch import BatchLayout
from lozo_bench.data.order import token_shares
from lozo_bench.tasks.base import Encoded


@dataclass(frozen=True, slots=True)
class Data:
    """The rows of the three sets as tokens, and how they become batches.

    Args:
        train: the training rows.
        dev: the rows that choose the step to test.
        test: the test rows.
        layout: how rows become batches.
        by_tokens: whether a batch's loss is the mean over its answers' tokens, instead of over its
            examples.
        written: how the answers are compared that the model writes in training; empty: it writes
            none.
        tasks: the data of each task by its name, if the run has several; those that are held out
            have test rows only. Of the run, ``layout`` is the first one's, and only what all tasks
            have in common is read from it.
    """

    train: Sequence[Encoded]
    dev: Sequence[Encoded]
    test: Sequence[Encoded]
    layout: BatchLayout
    by_tokens: bool = False
    written: str = ""
    tasks: Mapping[str, Data] = field(default_factory=dict)

    def of(self, example: Encoded) -> Data:
        """Return the data of a row's task."""
        return self.tasks.get(example.task, self)

    def kind(self, example: Encoded) -> Hashable:
        """Return what rows have in common that can go through the model together."""
        own = self.of(example)
        return own.layout, own.by_tokens, own.written

    def alike(self, examples: Sequence[Encoded]) -> list[list[int]]:
        """Return the numbers of the rows that can go through the model together."""
        if not self.tasks:
            return [list(range(len(examples)))] if examples else []
        return _grouped([self.kind(example) for example in examples])

    def shares(self, examples: Sequence[Encoded]) -> list[float] | None:
        """Return the factors of the rows' losses in a batch; None if all of them are 1.

        Those of a task that is trained by its answers' tokens add up to its number of rows, so
        that the rows of every task have the same weight.
        """
        if not self.tasks:
            return token_shares(examples) if self.by_tokens else None
        factors = [1.0] * len(examples)
        for numbers in _grouped([example.task for example in examples]):
            same = [examples[i] for i in numbers]
            if self.of(same[0]).by_tokens:
                for i, factor in zip(numbers, token_shares(same), strict=True):
                    factors[i] = factor
        return factors if any(data.by_tokens for data in self.tasks.values()) else None


def _grouped(keys: Sequence[Hashable]) -> list[list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return list(groups.values())
