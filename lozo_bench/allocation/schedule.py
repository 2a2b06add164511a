"""When to allocate."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from typing import Literal

from lozo_bench.errors import bad_value

When = Literal["static", "dynamic"]


@dataclass(frozen=True, slots=True)
class Timing:
    """At which steps the modules are allocated.

    Args:
        when: ``static``: before the first step only; ``dynamic``: again and again.
        every: the interval of the dynamic allocation, as a share of an epoch. It restarts with
            each epoch, as published (pl_callbacks/dyrealloc_callback.py:143,283).

    Raises:
        BadValueError: the share is not 0 < every <= 1.
    """

    when: When
    every: float

    def __post_init__(self) -> None:
        if not 0 < self.every <= 1:
            raise bad_value("every", self.every, "a share of an epoch: a number > 0 and <= 1")

    def interval(self, epoch: int) -> int:
        """Return the steps from one allocation to the next, in an epoch of so many steps."""
        return ceil(Decimal(str(self.every)) * epoch)

    def is_due(self, step: int, epoch: int) -> bool:
        """Return whether to allocate before a step.

        Args:
            step: its number, from 0.
            epoch: the steps of an epoch.
        """
        if self.when == "static":
            return step == 0
        return step % epoch % self.interval(epoch) == 0
