"""Scores of modules that have different ranks, factors s or places, on one scale.

The norm of the gradient of B is, at B = 0, s sqrt(r / (3 n)) times that of the weight (A is uniform
in [-1/sqrt(n), 1/sqrt(n))). So with equal gradients of the weights a shortcut with alpha = 4 counts
a fourth of a LoRA module with alpha = 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Literal

import torch
from torch import Tensor

from lozo_bench.tuning.low_rank_modules import LowRankModule

# none: raw scores, as published; rank: divided by s sqrt(r); group: divided by the mean of their
# group, which is the same projection in all blocks.
Normalise = Literal["none", "rank", "group"]


def normalised(how: Normalise, modules: Sequence[LowRankModule], scores: Tensor) -> Tensor:
    """Return the scores [N] on one scale."""
    if how == "rank":
        return scores / torch.tensor([m.scaling * sqrt(m.rank) for m in modules]).to(scores)
    if how == "group":
        groups = [module.group for module in modules]
        means = {
            group: float(scores[[g == group for g in groups]].abs().mean()) for group in set(groups)
        }
        return scores / torch.tensor([means[group] or 1.0 for group in groups]).to(scores)
    return scores
