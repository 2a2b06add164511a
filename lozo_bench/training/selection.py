"""Which step of a run is tested, and the schedule of its learning rate."""

from __future__ import annotations

from dataclasses import dataclass

from lozo_bench.config.schema import Schedule, Select
from lozo_bench.engine.snapshot import Snapshot
from lozo_bench.evaluation.evaluate import Metrics


@dataclass(frozen=True, slots=True)
class Best:
    """The best step so far, its dev metrics, and the engine's state after it."""

    step: int
    dev: Metrics
    state: Snapshot


def is_better(new: Metrics, best: Metrics, select: Select) -> bool:
    """Return whether ``new`` is strictly better: of equal steps the first one is kept."""
    if select is Select.dev_metric:
        return new.main > best.main
    if select is Select.dev_loss:
        return new.loss < best.loss
    return True


def schedule_factor(schedule: Schedule, step: int, steps: int) -> float:
    """Return the learning rate's factor at ``step`` (from 1): 1, or falling linearly to 1/steps."""
    if schedule is Schedule.constant:
        return 1.0
    return (steps - step + 1) / steps
