"""The phases of a run, and the peak memory of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

from lozo_bench.engine.fused import Fused
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.pending import PendingUpdate
from lozo_bench.optimizers.low_rank import LowRankDirections
from lozo_bench.training import selection
from lozo_bench.training.full_states import FullStates
from lozo_bench.training.trainer import Trainer

OUTSIDE = "between the phases"
# Which calls belong to a phase. A phase inside another one has a row of its own.
PHASES: dict[str, list[tuple[object, str]]] = {
    "draw a direction": [(LowRankDirections, "draw")],
    "two losses": [(Fused, "losses"), (InPlace, "full_rank_losses")],
    "move": [(PendingUpdate, "move"), (InPlace, "full_rank_move")],
    "close a period": [(PendingUpdate, "_compact")],
    "fold": [(PendingUpdate, "_fold")],
    "evaluate": [(Trainer, "_measure")],
    "keep the best step": [(PendingUpdate, "snapshot"), (InPlace, "snapshot")],
    "save a checkpoint": [(FullStates, "_save")],
    "fingerprints": [(selection, "fingerprint"), (selection, "fingerprints")],
    "restore the best step": [(PendingUpdate, "load_state"), (InPlace, "load_state")],
}


class Phases:
    """Collects the peak of each phase.

    Args:
        take: returns the peak since it was last called, in bytes by what has them, and begins a new
            one.
    """

    def __init__(self, take: Callable[[], Counter[str]]) -> None:
        self.peaks: dict[str, Counter[str]] = {}
        self.calls: Counter[str] = Counter()
        self._take = take
        self._inside = [OUTSIDE]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Inside this context, peaks belong to this phase."""
        self.note()
        self._inside.append(name)
        self.calls[name] += 1
        try:
            yield
        finally:
            self.note()
            self._inside.pop()

    def note(self) -> None:
        """Give the peak so far to the current phase."""
        name = self._inside[-1]
        self.peaks[name] = self.peaks.get(name, Counter()) | self._take()  # the larger ones

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside this context, the calls of a run are told apart by phase."""
        with ExitStack() as patched:
            for phase, calls in PHASES.items():
                for owner, name in calls:
                    own = self._within(phase, getattr(owner, name))
                    patched.enter_context(patch.object(owner, name, own))
            yield
            self.note()

    def _within(self, phase: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def watched(*args: Any, **kwargs: Any) -> Any:
            with self.phase(phase):
                return call(*args, **kwargs)

        return watched
