"""The rows of a run as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lozo_bench.data.collate import BatchLayout
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
    """

    train: Sequence[Encoded]
    dev: Sequence[Encoded]
    test: Sequence[Encoded]
    layout: BatchLayout
    by_tokens: bool = False
