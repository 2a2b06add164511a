"""Which steps of a bilevel run are upper ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lozo_bench.errors import bad_value
from lozo_bench.optimizers.base import check_count

StepCounting = Literal["published", "outer"]


@dataclass(frozen=True)
class BilevelSchedule:
    """T lower steps and one upper step, in turn.

    In the released code an upper step counts as a step too, and follows whenever a lower step makes
    the count a multiple of T. So the first cycle has T lower steps and each later one T - 1, and a
    run of 5,000 steps has one step more if 5,000 is a multiple of T.

    Args:
        inner_steps: T; 0: each step is an upper one.
        counting: ``published``: as in the released code; ``outer``: each cycle has T lower steps,
            and ``total_steps`` counts cycles.
        total_steps: the run's steps, or cycles.

    Raises:
        BadValueError: ``inner_steps`` is negative or ``total_steps`` below 1, or the counting is
            unknown.
    """

    inner_steps: int
    counting: StepCounting
    total_steps: int

    def __post_init__(self) -> None:
        if self.inner_steps < 0:
            raise bad_value("inner_steps", self.inner_steps, "a whole number >= 0")
        check_count("total_steps", self.total_steps)
        if self.counting not in ("published", "outer"):
            raise bad_value("step_counting", self.counting, "published or outer")

    @property
    def steps(self) -> int:
        """How many steps a run makes, lower and upper ones together."""
        T, total = self.inner_steps, self.total_steps
        if not T:
            return total
        if self.counting == "outer":
            return total * (T + 1)
        return total + (self.is_upper(total + 1) and not self.is_upper(total))

    @property
    def upper_steps(self) -> int:
        """How many of them are upper ones."""
        return sum(map(self.is_upper, range(1, self.steps + 1)))

    def is_upper(self, step: int) -> bool:
        """Return whether a step, counted from 1, is an upper one."""
        T = self.inner_steps
        if not T:
            return True
        if self.counting == "outer":
            return step % (T + 1) == 0
        if T == 1:  # an upper step does not lead to another one
            return step % 2 == 0
        return step > 1 and (step - 1) % T == 0

    def begins_cycle(self, step: int) -> bool:
        """Return whether a step is the first lower one of a cycle."""
        return step == 1 or (self.is_upper(step - 1) and not self.is_upper(step))
