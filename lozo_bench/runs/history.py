"""The history of a run on disk: its journal and, if wanted, full checkpoints.

A zeroth-order run resumes from its newest checkpoint, or from the beginning, by replaying the
recorded steps without forward passes. A first-order run can only resume from a checkpoint; later
records in its journal are removed, and these steps run again. `lozo_bench.runs.recall` reads both
from a run's folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lozo_bench.errors import UserError
from lozo_bench.runs.checkpoints import Checkpoint, Checkpoints
from lozo_bench.runs.journal import VERSION, Journal, Log
from lozo_bench.runs.outcome import JOURNAL

CHECKPOINTS = "checkpoints"
EVALUATED = ("zero_shot", "dev", "test")
# A killed run with slow steps loses at most this many seconds of progress.
_FLUSH_EVERY_S = 10.0


class History:
    """The history of a run, read only. Implements `RunHistory`.

    The methods that record do nothing: only the run's first process writes its history.

    Args:
        log: the contents of the journal.
        state: the checkpoint to resume from.
        known: the last step that is restored rather than run again.
    """

    def __init__(self, log: Log, state: Checkpoint | None, known: int) -> None:
        self.known = known
        self.log, self.newest = log, state

    def losses(self, step: int) -> Sequence[Tensor]:
        """Return the losses recorded in a step up to ``known``."""
        return self.log.steps[step - 1]

    def evaluation(self, step: int, name: str) -> Mapping[str, float] | None:
        """Return the metrics of an earlier evaluation, or None if it was not recorded."""
        return self.log.evaluations.get((step, name))

    def is_final(self, row: Mapping[str, float]) -> bool:
        """Return whether a row of metrics.jsonl is in this history and will not come again."""
        step = int(row["step"])
        name = evaluated_set(row)
        return step <= self.known if name is None else self.evaluation(step, name) is not None

    @property
    def state_step(self) -> int:
        """The step of the checkpoint to resume from, 0 without one."""
        return 0 if self.newest is None else self.newest.step

    @property
    def header(self) -> Mapping[str, Any]:
        """The journal's first block; empty without a journal."""
        return self.log.header

    def spent(self) -> Mapping[str, float]:
        """Return the costs of the steps up to ``known``."""
        return self.log.spent

    def state(self) -> tuple[int, Mapping[str, Tensor], Mapping[str, Any]] | None:
        """Return the step, tensors and metadata of the checkpoint to resume from, or None."""
        state, self.newest = self.newest, None  # called once; it is as large as the model
        return None if state is None else (state.step, state.tensors, state.metadata)

    def evaluated(self, step: int, name: str, values: Mapping[str, float]) -> None:
        """Do nothing: another process records this."""

    def step_made(self, step: int, losses: Sequence[Tensor], spent: Mapping[str, float]) -> None:
        """Do nothing: another process records this."""

    def wants_state(self, step: int) -> bool:
        """Return False: another process saves checkpoints."""
        return False

    def wants_last_state(self, step: int) -> bool:
        """Return False: another process saves checkpoints."""
        return False

    def save_state(
        self, step: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
    ) -> None:
        """Do nothing: another process saves checkpoints."""

    def flush(self) -> None:
        """Do nothing: another process writes the journal."""


class HistoryWriter(History):
    """The history of a run and its writer. Only one process of a run may have it.

    Args:
        folder: the run's folder.
        past: the history returned by `recall`.
        header: the first block of a new journal.
        every: the number of steps between two blocks of the journal, and between two checkpoints.
        states: where checkpoints are saved; None: they are not.
        replayable: the recorded steps can be replayed, so the last step needs no checkpoint.
        sync_metrics: called before each block; must write everything else about the same steps
            to disk.
    """

    def __init__(
        self,
        folder: Path,
        past: History,
        header: Mapping[str, Any],
        every: int,
        states: Checkpoints | None,
        replayable: bool,
        sync_metrics: Callable[[], None],
    ) -> None:
        super().__init__(past.log, past.newest, past.known)
        self._header, self._spent = {"version": VERSION, **header}, past.spent()
        self._journal = Journal(folder / JOURNAL, past.known, header, past.spent())
        self._every, self._states, self._sync_metrics = every, states, sync_metrics
        self._replayable, self._last_saved = replayable, past.state_step
        self._flushed = time.monotonic()

    def evaluated(self, step: int, name: str, values: Mapping[str, float]) -> None:
        """Record the metrics of an evaluation."""
        self._journal.evaluation(step, name, values)
        self.log.evaluations[step, name] = dict(values)
        self.log.forwards[step, name] = int(self._spent.get("forwards", 0))

    def step_made(self, step: int, losses: Sequence[Tensor], spent: Mapping[str, float]) -> None:
        """Record a step: its losses, and the costs of all steps so far."""
        self._journal.step(losses, spent)
        self._spent = spent
        if step % self._every == 0 or time.monotonic() - self._flushed > _FLUSH_EVERY_S:
            self.flush()

    def wants_state(self, step: int) -> bool:
        """Return whether a checkpoint is due after this step."""
        return self._states is not None and step % self._every == 0

    def wants_last_state(self, step: int) -> bool:
        """Return whether a run that stops after this step needs a checkpoint of it."""
        return self._states is not None and not self._replayable and step > self._last_saved

    def save_state(
        self, step: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
    ) -> None:
        """Save a checkpoint."""
        assert self._states is not None
        self.flush()
        known = {
            "header": self._header,
            "evaluations": [
                [*at, values, self.log.forwards.get(at)]
                for at, values in self.log.evaluations.items()
            ],
            "spent": self._spent,
        }
        self._states.save(Checkpoint(step, tensors, metadata, known))
        self._last_saved = step

    def flush(self) -> None:
        """Write everything recorded so far to disk."""
        self._sync_metrics()
        self._journal.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()


class OtherRun(UserError):  # noqa: N818  # of this run it is no error
    """The folder is that of another run, in which nothing may be written."""


def evaluated_set(row: Mapping[str, Any]) -> str | None:
    """Return the set whose evaluation a row of metrics.jsonl describes; None: it is of a step."""
    return next((name for name in EVALUATED for key in row if key.startswith(f"{name}_")), None)
