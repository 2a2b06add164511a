"""A limit on what a run may spend on its steps, so that methods are compared at equal cost."""

from __future__ import annotations

from dataclasses import dataclass

from lozo_bench.training.costs import Spent


@dataclass(frozen=True, slots=True)
class Budget:
    """The run ends after the first step with which one of the limits is reached.

    Args:
        queries: of examples times passes, forward and backward ones alike; None: no limit.
        seconds: of the steps, without evaluations; None: no limit. How many steps this allows
            depends on the machine.
    """

    queries: int | None = None
    seconds: float | None = None

    def reached(self, spent: Spent) -> str:
        """Return the limit that is reached, as it is written in the config; empty if none is."""
        if self.queries is not None and spent.queries + spent.backward_queries >= self.queries:
            return f"max_queries={self.queries}"
        if self.seconds is not None and spent.train_s >= self.seconds:
            return f"max_seconds={self.seconds:g}"
        return ""
