"""Which step of a run is tested, and how its learning rate moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from lozo_bench.config.schema import Schedule, Select
from lozo_bench.evaluation.evaluate import Metrics


@dataclass(frozen=True, slots=True)
class Best:
    """The step to be tested so far, its dev metrics, and the engine's state there."""

    step: int
    dev: Metrics
    state: Mapping[str, Tensor]


def is_better(new: Metrics, best: Metrics, select: Select) -> bool:
    """Whether ``new`` replaces ``best``: strictly better, so that the first of equals stays."""
    if select is Select.dev_metric:
        return new.main > best.main
    if select is Select.dev_loss:
        return new.loss < best.loss
    return True


def schedule_factor(schedule: Schedule, step: int, steps: int) -> float:
    """Share of the learning rate used at ``step`` (1-based): all of it, or falling to 1/steps."""
    if schedule is Schedule.constant:
        return 1.0
    return (steps - step + 1) / steps
