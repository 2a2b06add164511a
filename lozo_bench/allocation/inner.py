"""The optimizer inside an allocation, and the base of the optimizers around it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lozo_bench.engine.protocol import Engine
from lozo_bench.errors import Stopped, UserError
from lozo_bench.optimizers.base import Needs, Optimizer, Report, Score
from lozo_bench.optimizers.state import load_optimizer_state, optimizer_state


class Inner:
    """A wrapped optimizer, as an attribute that a checkpoint can keep.

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


class Around:
    """An optimizer that makes the steps of another one; a subclass allocates before or after them.

    Args:
        optimizer: makes the steps.
        engine: holds the weights.
        needs: of the optimizer and of the allocation.
    """

    def __init__(self, optimizer: Optimizer, engine: Engine, needs: Needs) -> None:
        self.engine, self.needs = engine, needs
        self.inner = Inner(optimizer)

    @property
    def wrapped(self) -> Optimizer:
        """The optimizer that makes the steps."""
        return self.inner.optimizer

    @property
    def lr(self) -> float:
        """The learning rate of the wrapped optimizer."""
        return self.wrapped.lr

    @lr.setter
    def lr(self, lr: float) -> None:
        self.wrapped.lr = lr
