"""CONSTANT: all modules have the same score, so which of them are on is drawn anew each time.

Source: Zhang et al., arXiv 2406.14956; released code, importance_testing/constant.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lozo_bench.engine.score import Score
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.low_rank_modules import LowRankModule


class Constant:
    """Gives every module the score 1."""

    gradient = False
    batches: int | None = 0

    def scores(
        self, modules: Sequence[LowRankModule], batches: Sequence[Score], draws: Draws, number: int
    ) -> Tensor:
        """See `Proxy`."""
        return torch.ones(len(modules), dtype=torch.float64)
