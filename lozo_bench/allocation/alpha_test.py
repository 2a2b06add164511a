"""ALPHA-TEST: how much of a layer's output can be left out before the loss grows.

    score = the smallest a in 0, ..., 10 with
    L(output of the module's layer times a / 10) <= (1 + tolerance) L

found by bisection, which takes the condition to hold from some a on. As published, the output of a
layer with a LoRA module is that of layer and module together, and that of a shortcut is that of its
module alone. Published scores are of a metric, half on dev rows; here L is the loss of training
rows, so that no dev label is seen. No gradient is needed, but up to 4 passes over the scoring
batches for each module, which is why the published interval is a whole epoch.

Source: Zhang et al., arXiv 2406.14956; released code, importance_testing/alpha_test.py:241-252,
lora/lora_modules.py:179.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from lozo_bench.allocation.taps import layer_of
from lozo_bench.engine.score import Score
from lozo_bench.engine.subspace import NOWHERE
from lozo_bench.optimizers.base import check_not_negative
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.low_rank_modules import LowRankModule

_PARTS = 10


class AlphaTest:
    """Scores a module by the share of its layer's output that the loss needs.

    Args:
        tolerance: by which share the loss may grow.
    """

    gradient = False
    batches: int | None = None

    def __init__(self, *, tolerance: float) -> None:
        check_not_negative("tolerance", tolerance)
        self.tolerance = tolerance

    def scores(
        self, modules: Sequence[LowRankModule], batches: Sequence[Score], draws: Draws, number: int
    ) -> Tensor:
        """See `Proxy`."""
        most = _loss(batches) * (1 + self.tolerance)
        found = [self._needed(module, batches, most) for module in modules]
        return torch.tensor(found, dtype=torch.float64)

    def _needed(self, module: LowRankModule, batches: Sequence[Score], most: float) -> int:
        """Return the smallest a with which the loss is at most ``most``."""
        low, high = 0, _PARTS
        while low < high:
            a = (low + high) // 2
            with scaled(module, a / _PARTS):
                if _loss(batches) <= most:
                    high = a
                else:
                    low = a + 1
        return low


@contextmanager
def scaled(module: LowRankModule, by: float) -> Iterator[None]:
    """Inside this context, the output of the module's layer is multiplied by a number."""
    hook = layer_of(module).register_forward_hook(lambda layer, args, output: output * by)
    try:
        yield
    finally:
        hook.remove()


def _loss(batches: Sequence[Score]) -> float:
    """Return the mean loss of the batches' rows."""
    total = sum(batch(NOWHERE, [0.0])[0] * batch.examples for batch in batches)
    return total / sum(batch.examples for batch in batches)
