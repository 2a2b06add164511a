"""Proxies that are functions of gradients, summed over batches.

Gradients are summed, not averaged, as published (importance_testing/grad_norm.py): batches that
pull in opposite directions cancel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from lozo_bench.allocation.taps import Sums, gradients_of_module, observed
from lozo_bench.engine.score import Score
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.low_rank_modules import LowRankModule


class ByGradient(ABC):
    """A proxy that is a function of gradients.

    They are those of scoring batches, or those that training computes anyway.
    """

    gradient = True
    batches: int | None = None

    def observe(self, module: LowRankModule, x: Tensor, G: Tensor) -> Sequence[Tensor]:
        """Return what is summed over the passes: here dL/dA [r, n] and dL/dB [m, r].

        Args:
            module: the module.
            x: what enters its layer, [T, n].
            G: the gradient of what comes out of the layer, [T, m].
        """
        return gradients_of_module(module, x, G)

    @abstractmethod
    def of(self, module: LowRankModule, sums: Sequence[Tensor]) -> Tensor:
        """Return the score of a module from the sums of what was observed."""

    def scores(
        self, modules: Sequence[LowRankModule], batches: Sequence[Score], draws: Draws, number: int
    ) -> Tensor:
        """See `Proxy`."""
        with observed(modules, self.observe) as sums:
            for batch in batches:
                differentiate(batch)
        return self.scores_of(modules, sums)

    @torch.no_grad()
    def scores_of(self, modules: Sequence[LowRankModule], sums: Sums) -> Tensor:
        """Return the score of each module, float64 [N]; 0 for one without a gradient."""
        zero = torch.zeros((), dtype=torch.float64)
        scores = [self.of(m, sums[i]) if i in sums else zero for i, m in enumerate(modules)]
        return torch.stack([score.to("cpu", torch.float64) for score in scores])


def differentiate(batch: Score) -> None:
    """Send a batch forward and back, and drop the gradients of the weights."""
    with batch.engine.applied():
        try:
            batch.differentiate()
        finally:
            for x in batch.engine.X.values():
                x.grad = None
