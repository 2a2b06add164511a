"""Full states of a run: all that it needs to continue after a step, saved in its history."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lozo_bench.engine.protocol import Engine
from lozo_bench.engine.snapshot import Snapshot
from lozo_bench.engine.terms import with_prefix
from lozo_bench.errors import Stopped, UserError
from lozo_bench.evaluation.evaluate import Metrics
from lozo_bench.optimizers.base import Optimizer
from lozo_bench.optimizers.state import load_optimizer_state, optimizer_state
from lozo_bench.training.batcher import StreamBatches
from lozo_bench.training.interfaces import RunHistory
from lozo_bench.training.selection import Best, BestStep


class FullStates:
    """Saves and restores what a run consists of between two steps.

    Args:
        engine: the weights.
        optimizer: what it remembers. It has made no step yet.
        streams: how many batches of each were taken.
        best: the best step so far, with its weights.
        history: where states are saved, and the one from which this attempt continues.
    """

    def __init__(
        self,
        engine: Engine,
        optimizer: Optimizer,
        streams: StreamBatches,
        best: BestStep,
        history: RunHistory,
    ) -> None:
        self._engine, self._optimizer, self._streams = engine, optimizer, streams
        self._best, self._history = best, history
        self._attributes = set(vars(optimizer))

    def load(self) -> int:
        """Restore the state in the history and return its step, 0 without one."""
        found = self._history.state()
        if found is None:
            return 0
        step, tensors, metadata = found
        now = with_prefix("engine", tensors)
        self._engine.load_state(now)
        load_optimizer_state(self._optimizer, with_prefix("optimizer", tensors))
        self._streams.go_to(metadata.get("streams", {}))
        if (best := metadata["best"]) is not None:
            state = now if best["step"] == step else with_prefix("best", tensors)
            self._best.found = Best(best["step"], Metrics(best["dev"]), Snapshot.of(state))
        return step

    def save_if_due(self, step: int, is_last: bool) -> None:
        """Save the state after a step if it is time, or if it is the last, as the test can stop."""
        history = self._history
        if history.wants_state(step) or (is_last and history.wants_last_state(step)):
            self._save(step)

    @contextmanager
    def saved_if_stopped(self, step: int) -> Iterator[None]:
        """If the run ends in this context, save the state of ``step``, if it would be lost."""
        streams, attributes = dict(self._streams.taken), dict(vars(self._optimizer))
        try:
            yield
        except (Stopped, UserError) as error:
            # What the step that was not finished has counted so far is not part of that state.
            self._streams.go_to(streams)
            vars(self._optimizer).update(attributes)
            unchanged = isinstance(error, Stopped) or self._optimizer.needs.asks_once
            if unchanged and self._history.wants_last_state(step):
                self._save(step)
            raise

    def _save(self, step: int) -> None:
        tensors = {f"engine/{name}": x for name, x in self._engine.state().items()}
        if late := vars(self._optimizer).keys() - self._attributes:
            raise UserError(
                f"optimizer: a step added the attribute {', '.join(sorted(late))}; set it in "
                "__init__, to None if it has no value yet, so that a checkpoint can restore it"
            )
        tensors |= {f"optimizer/{name}": x for name, x in optimizer_state(self._optimizer).items()}
        metadata: dict[str, Any] = {"best": None}
        if self._streams.taken:
            metadata["streams"] = dict(self._streams.taken)
        if (best := self._best.found) is not None:
            metadata["best"] = {"step": best.step, "dev": dict(best.dev.values)}
            if best.step != step:
                tensors |= {f"best/{name}": x for name, x in best.state.on_cpu().items()}
        self._history.save_state(step, tensors, metadata)
