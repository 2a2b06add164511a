"""A run's memory on disk: its scalar log, and full states beside it where they are wanted.

A zeroth-order run goes on from its newest full state, or from the beginning, by making the logged
steps again without a forward pass. A first-order run can only go on from a full state; what its log
says after that is dropped and comes again.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lozo_bench.errors import UserError
from lozo_bench.runs.journal import VERSION, Journal, Log, read, up_to
from lozo_bench.runs.states import State, States

log = logging.getLogger(__name__)

JOURNAL = "journal.bin"
CHECKPOINTS = "checkpoints"
# A run of slow steps loses no more than this when it is killed.
_LONGEST_WAIT_S = 10.0


class Past:
    """What a run did before, read only.

    Args:
        log: the scalar log.
        state: the state to go on from.
        known: the last step that need not be made again with forward passes.
    """

    def __init__(self, log: Log, state: State | None, known: int) -> None:
        self.known = known
        self.log, self.newest = log, state

    def losses(self, step: int) -> Sequence[Tensor]:
        """See `RunHistory`."""
        return self.log.steps[step - 1]

    def evaluation(self, step: int, name: str) -> Mapping[str, float] | None:
        """See `RunHistory`."""
        return self.log.evaluations.get((step, name))

    def has(self, row: Mapping[str, float]) -> bool:
        """Whether a row of metrics.jsonl belongs to what is remembered: it does not come again."""
        step = int(row["step"])
        for key in row:
            name, _, kind = key.rpartition("_")
            if kind == "loss" and name in ("zero_shot", "dev", "test"):
                return self.evaluation(step, name) is not None
        return step <= self.known

    @property
    def state_step(self) -> int:
        """The step of the state to go on from, 0 without one."""
        return 0 if self.newest is None else self.newest.step

    @property
    def header(self) -> Mapping[str, Any]:
        """The log's first block; empty without a log."""
        return self.log.header

    def spent(self) -> Mapping[str, float]:
        """See `RunHistory`."""
        return self.log.spent

    def state(self) -> tuple[int, Mapping[str, Tensor], Mapping[str, Any]] | None:
        """See `RunHistory`."""
        state, self.newest = self.newest, None  # asked for once; it is as large as the model
        return None if state is None else (state.step, state.tensors, state.told)

    def evaluated(self, step: int, name: str, values: Mapping[str, float]) -> None:
        """See `RunHistory`: another process takes it down."""

    def step_made(self, step: int, losses: Sequence[Tensor], spent: Mapping[str, float]) -> None:
        """See `RunHistory`: another process takes it down."""

    def wants_state(self, step: int) -> bool:
        """See `RunHistory`: another process keeps them."""
        return False

    def wants_last_state(self, step: int) -> bool:
        """See `RunHistory`: another process keeps them."""
        return False

    def save_state(
        self, step: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
    ) -> None:
        """See `RunHistory`: another process keeps them."""

    def flush(self) -> None:
        """See `RunHistory`: another process does."""


class Record(Past):
    """The past of a run, and its present as it is made; for one process a run.

    Args:
        folder: the run's.
        past: from `recall`.
        header: written first into a new log.
        every: steps between two blocks of the log, and between two full states.
        states: where full states are kept; None: they are not.
        replayable: the logged steps can be made again, and a state of the last is not needed.
        settle: called before each block: what belongs to the same steps must be on disk by then.
    """

    def __init__(
        self,
        folder: Path,
        past: Past,
        header: Mapping[str, Any],
        every: int,
        states: States | None,
        replayable: bool,
        settle: Callable[[], None],
    ) -> None:
        super().__init__(past.log, past.newest, past.known)
        self._journal = Journal(folder / JOURNAL, past.known, header, past.spent())
        self._every, self._states, self._settle = every, states, settle
        self._replayable, self._last_kept = replayable, past.state_step
        self._flushed = time.monotonic()

    def evaluated(self, step: int, name: str, values: Mapping[str, float]) -> None:
        """See `RunHistory`."""
        self._journal.evaluation(step, name, values)

    def step_made(self, step: int, losses: Sequence[Tensor], spent: Mapping[str, float]) -> None:
        """See `RunHistory`."""
        self._journal.step(losses, spent)
        if step % self._every == 0 or time.monotonic() - self._flushed > _LONGEST_WAIT_S:
            self.flush()

    def wants_state(self, step: int) -> bool:
        """See `RunHistory`."""
        return self._states is not None and step % self._every == 0

    def wants_last_state(self, step: int) -> bool:
        """See `RunHistory`."""
        return self._states is not None and not self._replayable and step > self._last_kept

    def save_state(
        self, step: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
    ) -> None:
        """See `RunHistory`."""
        assert self._states is not None
        self.flush()
        self._states.save(State(step, tensors, metadata))
        self._last_kept = step

    def flush(self) -> None:
        """See `RunHistory`."""
        self._settle()
        self._journal.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Close the log."""
        self._journal.close()


def check_format(found: Log, path: Path) -> None:
    """Refuse a log that another version of this package wrote in another way.

    Raises:
        UserError: it is.
    """
    if found.header and found.header["version"] != VERSION:
        raise UserError(
            f"{path}: it is of format {found.header['version']}, and this version knows "
            f"{VERSION}; run again with rerun=all"
        )


def recall(folder: Path, digest: str, replayable: bool, full: bool) -> tuple[Past, bytes]:
    """What the run in ``folder`` did before, and its log's bytes; both empty for a new one.

    Whatever cannot be gone on from is cut off the files.

    Args:
        folder: the run's.
        digest: of its config; the log must be of the same.
        replayable: the logged steps can be made again.
        full: look for full states.

    Raises:
        UserError: the log is of another run.
    """
    path = folder / JOURNAL
    data = path.read_bytes() if path.exists() else b""
    found = read(data)
    check_format(found, path)
    if found.header and found.header["digest"] != digest:
        raise UserError(
            f"{path}: it is of the run {found.header['digest']}, and this one is {digest}; "
            "move the folder away or run again with rerun=all"
        )
    if found.damage:
        log.warning("%s is %s; the run goes on from there", path, found.damage)
    states = States(folder / CHECKPOINTS, keep=1)
    state = states.newest(len(found.steps)) if full else None
    known = len(found.steps) if replayable else (state.step if state else 0)
    good = up_to(found, data, known)
    if len(good) < len(data):
        os.truncate(path, len(good))
        found = read(good)
    states.remove_after(known)
    return Past(found, state, known), good
