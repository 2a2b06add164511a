"""The rows of a run as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lozo_bench.data.collate import BatchLayout
from lozo_bench.tasks.base import Encoded


@dataclass(frozen=True, slots=True)
class Data:
    """The three sets, as tokens, and how they become batches.

    ``by_tokens``: a batch's loss is the mean over its answers' tokens, not over its examples.
    """

    train: Sequence[Encoded]
    dev: Sequence[Encoded]
    test: Sequence[Encoded]
    layout: BatchLayout
    by_tokens: bool = False
