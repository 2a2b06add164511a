"""No training at all: the model as it was loaded, on the test set."""

from __future__ import annotations

from typing import ClassVar

from lozo_bench.engine.draws import Draws
from lozo_bench.optimizers.base import Engine, Report, Score, Steps


class ZeroShot:
    """The model answers from the prompt alone.

    Args:
        X: the weights; they stay as they are.
        draws: not used: nothing here is random.
        calibrated: score options against their probability without the row (SFC), where the task
            has a ``calibration`` text.
    """

    steps: ClassVar[Steps] = Steps.none

    def __init__(self, X: Engine, draws: Draws, *, calibrated: bool = False) -> None:
        self.lr, self.calibrated = 0.0, calibrated

    def step(self, score: Score) -> Report:
        """There is none; a run of this method has 0 steps."""
        raise NotImplementedError
