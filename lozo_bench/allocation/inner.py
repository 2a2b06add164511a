"""The optimizer inside an allocation, as an attribute that a checkpoint can keep."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lozo_bench.errors import Stopped, UserError
from lozo_bench.optimizers.base import Optimizer, Report, Score
from lozo_bench.optimizers.state import load_optimizer_state, optimizer_state


class Inner:
    """A wrapped optimizer.

    Args:
        optimizer: makes the steps.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def step(self, score: Score) -> Report:
        """Make a step. If the run ends in it, the optimizer's attributes are those from before."""
        attributes = dict(vars(self.optimizer))
        try:
            return self.optimizer.step(score)
        except (Stopped, UserError):
            vars(self.optimizer).update(attributes)
            raise

    def state(self) -> Mapping[str, Tensor]:
        """Return what the optimizer has gathered."""
        return optimizer_state(self.optimizer)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what `state` returned."""
        load_optimizer_state(self.optimizer, state)
