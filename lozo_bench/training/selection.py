"""Which step of a run is tested, and the schedule of its learning rate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lozo_bench.config.schema import Schedule, Select
from lozo_bench.engine.protocol import Engine
from lozo_bench.engine.snapshot import Snapshot
from lozo_bench.engine.tensors import fingerprint, fingerprints
from lozo_bench.evaluation.evaluate import Metrics


@dataclass(frozen=True, slots=True)
class Best:
    """The best step so far, its dev metrics, and the engine's state after it."""

    step: int
    dev: Metrics
    state: Snapshot


class BestStep:
    """Keeps the best step of a run, whose weights are tested in the end.

    Args:
        engine: holds the weights.
        select: which of two steps is better.
        scratch: a folder for its weights; None: they are kept in memory.

    Attributes:
        found: the best step so far; None before the first evaluation on dev.
    """

    def __init__(self, engine: Engine, select: Select, scratch: Path | None) -> None:
        self._engine, self._select, self._scratch = engine, select, scratch
        self.found: Best | None = None

    def offer(self, step: int, dev: Metrics) -> None:
        """Keep the step that was just made, if it is better than the best one so far."""
        before = self.found
        if before is not None and not is_better(dev, before.dev, self._select):
            return
        spare = None if before is None else before.state
        self.found = before = None  # there are never two
        self.found = Best(step, dev, self._engine.snapshot(self._scratch, spare))

    def load(self, last: int) -> tuple[str, str]:
        """Load its weights; return the fingerprints of those of the last step and of these."""
        if self.found is None or self.found.step == last:
            now = tested = fingerprint(self._engine.tensors())
        else:
            best = self.found.state.tensors()
            now, tested = fingerprints(self._engine.tensors(), best)
            self._engine.load_state(best)
        if self.found is not None:
            self.found = replace(self.found, state=Snapshot({}))  # it is the size of the model
        return now, tested


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
