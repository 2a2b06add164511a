"""SNIP: sum |A * dL/dA| + sum |B * dL/dB|, the gradient of a mask on each weight.

At the start B = 0, and so is dL/dA: all scores are 0. The first set of modules is drawn. Those
that are off keep B = 0 and the score 0, so the set never changes. This also shows in the authors'
logs of MRPC, where 36 of 48 scores are 0 in each of 99 allocations.

Source: Lee, Ajanthan, Torr, arXiv 1810.02340; Zhang et al., arXiv 2406.14956; released code,
importance_testing/snip.py:83-192, whose masks have the same gradients.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from torch import Tensor

from lozo_bench.allocation.by_gradient import ByGradient
from lozo_bench.allocation.taps import Sums
from lozo_bench.tuning.low_rank_modules import LowRankModule

log = logging.getLogger(__name__)


class Saliency(ByGradient):
    """A proxy that multiplies weights by their gradients, and warns once if scores are 0."""

    def __init__(self) -> None:
        self._warned = False

    def of(self, module: LowRankModule, sums: Sequence[Tensor]) -> Tensor:
        """See `ByGradient`."""
        dA, dB = (x.double() for x in sums)
        score: Tensor = (module.A * dA).abs().sum() + (module.B * dB).abs().sum()
        return score

    def scores_of(self, modules: Sequence[LowRankModule], sums: Sums) -> Tensor:
        """See `ByGradient`."""
        scores = super().scores_of(modules, sums)
        zeros = int((scores == 0).sum())
        if zeros and not self._warned:
            self._warned = True
            log.warning(
                "allocation: %d of %d modules have the score 0 with %s, because B is 0 at the "
                "start. Which of them are on is drawn; those that are off keep the score 0, so the "
                "set does not change any more. What to do: allocation=grad_norm or dense_gradient",
                zeros,
                len(modules),
                type(self).__name__,
            )
        return scores


class Snip(Saliency):
    """Scores a module by how much the loss would change without each of its weights."""
