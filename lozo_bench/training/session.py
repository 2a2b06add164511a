"""What one process of a run holds while it runs: the folder's lock, its files and the terminal.

A run is made by one process, or by several that share it. The first one leads: it keeps the files.
The others follow: they get the history from the first one, and write nothing.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from typing import Any, Protocol

from lozo_bench.config.digest import large_files
from lozo_bench.config.schema import Rerun
from lozo_bench.display.allocation_figure import draw_allocation
from lozo_bench.display.bilevel_figure import draw_bilevel
from lozo_bench.display.console import FilesAndTerminal, ProgressBar
from lozo_bench.display.device_hours import DeviceHours
from lozo_bench.display.search_figure import draw_search
from lozo_bench.display.tracking import Tracker
from lozo_bench.errors import UserError
from lozo_bench.evaluation.evaluate import Metrics
from lozo_bench.parallel.team import Team
from lozo_bench.runs import provenance
from lozo_bench.runs.apart import own_label
from lozo_bench.runs.checkpoints import Checkpoints
from lozo_bench.runs.contents import check_contents, content_hashes
from lozo_bench.runs.files import check_is_file
from lozo_bench.runs.history import CHECKPOINTS, History, HistoryWriter
from lozo_bench.runs.hydra_files import own_choices, values_of
from lozo_bench.runs.journal import read
from lozo_bench.runs.lock import Lock
from lozo_bench.runs.outcome import (
    ALLOCATION,
    BILEVEL,
    EVENTS,
    FAILED,
    JOURNAL,
    METRICS,
    RESULT,
    SEARCH,
)
from lozo_bench.runs.recall import recall
from lozo_bench.runs.result_file import read_result, write_result
from lozo_bench.runs.rows import prepare_rows
from lozo_bench.training.build_run import BuiltRun
from lozo_bench.training.interfaces import Observer, Outcome, RunHistory, SilentObserver
from lozo_bench.training.plan import Cell
from lozo_bench.training.predictions import write_predictions
from lozo_bench.training.result import about_run, journal_header, log_plan, result_of, summary_of
from lozo_bench.training.shorter import Begun, begin_from_shorter

log = logging.getLogger(__name__)

Result = dict[str, Any]
_LONGEST_NAME = 128  # of a run in wandb


class LeftAlone(Exception):  # noqa: N818  # not an error: what was asked for
    """The cell is not among those that ``rerun`` asks for."""


class Session(Protocol):
    """One process's part in a run."""

    result: Result | None

    def recall(self) -> History | None:
        """Return what earlier attempts did; None: nothing is left to do."""
        ...

    def open(self, past: History, built: BuiltRun) -> tuple[RunHistory, Observer]:
        """Return where the run is recorded, and who receives its progress."""
        ...

    def record(self, built: BuiltRun, outcome: Outcome) -> Result | None:
        """Record the result."""
        ...

    def check(self) -> None:
        """Raise Stopped if the run has to stop."""
        ...


class Leader:
    """The session of a run's only or first process.

    Args:
        cell: the run.
        team: its processes.
        check: raises Stopped when the run was asked to stop.
        held: releases the lock and closes the files when the run ends.
        record: writes the command into the folder.
    """

    def __init__(
        self,
        cell: Cell,
        team: Team,
        check: Callable[[], None],
        held: ExitStack,
        record: Callable[[], None],
    ) -> None:
        self.cell, self.team = cell, team
        self.result: Result | None = None
        self._check, self._held, self._record = check, held, record
        self._files: dict[str, str] = {}
        self._lock: Lock | None = None
        self._begun: Begun | None = None

    def recall(self) -> History | None:
        """Lock the folder and read it, unless the run is finished; tell the other processes.

        Raises:
            Busy: another process runs this cell.
            LeftAlone: ``rerun`` does not ask for it.
            UserError: the folder is of another run, or damaged.
        """
        data, past = b"", None
        try:
            for name in (RESULT, JOURNAL, METRICS, EVENTS, FAILED, SEARCH, ALLOCATION, BILEVEL):
                check_is_file(self.cell.folder / name)
            self._files = content_hashes(large_files(self.cell.plain))
            self.result = _finished(self.cell, self._files)
            if self.result is None:
                self._lock = self._held.enter_context(Lock(self.cell.folder))
                _clear(self.cell)
                if self.cell.config.rerun is not Rerun.all:
                    self._begun = begin_from_shorter(self.cell, self._files)
                past, data = _past(self.cell, self._files)
                self._record()
        finally:
            self.team.from_first(data)  # empty: nothing is left to do, or reading failed
        if past is None:
            log.info("already finished; rerun=all runs it again")
        elif self._begun is not None:
            log.info(self._begun.told(past.known))
        elif past.known:
            log.info("continuing after step %d", past.known)
        return past

    def open(self, past: History, built: BuiltRun) -> tuple[RunHistory, Observer]:
        """Open the run's files and the progress bar."""
        cell, config = self.cell, self.cell.config
        log_plan(config, built)
        if values := values_of(cell.folder, config.optimizer.get("lr")):
            log.info(values)
        self._peak_of = provenance.reset_peak_memory(built.loaded.device)
        name = config.tracking.name or _display_name(cell)
        header = journal_header(cell, past, built, self._files)
        prepare_rows(cell.folder, past)
        self._tracker = self._held.enter_context(
            Tracker(about_run(cell, name, header["wandb_id"]), config.tracking)
        )
        before_s = float(past.spent().get("elapsed_s", 0.0))
        cost = DeviceHours.of(built.loaded.model, self.team.size, before_s)
        bar = self._held.enter_context(
            ProgressBar(built.parts.settings.steps, past.known, config.task.select, cost)
        )
        for (_, evaluated), metrics in past.log.evaluations.items():
            bar.recalled(evaluated, Metrics(metrics))
        states = Checkpoints(cell.folder / CHECKPOINTS, config.checkpoint.keep)
        history = HistoryWriter(
            cell.folder,
            past,
            header,
            config.checkpoint.every,
            states if cell.plan.full_states else None,
            cell.plan.replayable,
            self._tracker.sync,
        )
        return self._held.enter_context(closing(history)), FilesAndTerminal(self._tracker, bar)

    def record(self, built: BuiltRun, outcome: Outcome) -> Result:
        """Write ``result.json``, wandb's summary and the figures; return the result."""
        if outcome.steps < built.parts.settings.steps:
            log.info("%s ended the run after step %d", outcome.stopped_by, outcome.steps)
        if self.cell.config.predictions:
            with built.chosen.engine.applied():
                write_predictions(self.cell.config, built, self.cell.folder)
        found = result_of(self.cell, outcome, built, self.team, self._peak_of)
        self._tracker.summarize(summary_of(found, outcome))
        self.result = found | {"files": self._files}
        write_result(self.cell.folder, self.result)
        for draw in (draw_search, draw_allocation, draw_bilevel):
            if (figure := draw(self.cell.folder)) is not None:
                self._tracker.figure(figure)
        return self.result

    def check(self) -> None:
        """Raise Stopped if the run was asked to stop, or if another process took its folder."""
        self._check()
        if self._lock is not None:
            self._lock.check()


class Follower:
    """The session of another process of the run; see `Leader` for its arguments."""

    def __init__(self, cell: Cell, team: Team, check: Callable[[], None]) -> None:
        self.cell, self.team, self.check = cell, team, check
        self.result: Result | None = None
        # The first process logs for all of them.
        logging.getLogger("lozo_bench").setLevel(logging.WARNING)

    def recall(self) -> History | None:
        """Return what the first process read.

        Raises:
            UserError: this process does not see the checkpoint that the first one found.
        """
        data = self.team.from_first(b"")
        if not data:
            return None
        line, _, journal = data.partition(b"\n")
        start, state = json.loads(line), None
        if start["state"]:
            folder = self.cell.folder / CHECKPOINTS
            state = Checkpoints(folder, keep=1).newest(start["state"])
            if state is None or state.step != start["state"]:
                raise UserError(
                    f"{folder}: process {self.team.rank} does not see the state of step "
                    f"{start['state']}; outputs must be on a file system that all nodes share"
                )
        return History(read(journal), state, start["known"])

    def open(self, past: History, built: BuiltRun) -> tuple[RunHistory, Observer]:
        """Return the history as it was read, and an observer that ignores everything."""
        return past, SilentObserver()

    def record(self, built: BuiltRun, outcome: Outcome) -> None:
        """Record nothing: the first process does."""


def _display_name(cell: Cell) -> str:
    """Return the task, the model, the folder's name and what else was set for the run."""
    name = f"{cell.config.task.name}-{cell.config.model.name}-{cell.folder.name}"
    return f"{name} {own_label(own_choices(cell.folder))}".strip()[:_LONGEST_NAME]


def _finished(cell: Cell, files: Mapping[str, str]) -> Result | None:
    if cell.config.rerun is Rerun.all:
        return None
    result = read_result(cell.folder, cell.digest)
    if result is not None:
        check_contents(result.get("files", {}), files)
        (cell.folder / FAILED).unlink(missing_ok=True)
    return result


def _clear(cell: Cell) -> None:
    """Remove what ``rerun=all`` does not continue, and the record of a failure."""
    folder, rerun = cell.folder, cell.config.rerun
    if rerun is Rerun.failed and not (folder / FAILED).exists():
        raise LeftAlone(f"{folder}: it did not fail, and rerun=failed leaves it alone")
    if rerun is Rerun.all:
        for name in (RESULT, JOURNAL, METRICS, EVENTS, SEARCH, ALLOCATION, BILEVEL):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    (folder / FAILED).unlink(missing_ok=True)


def _past(cell: Cell, files: Mapping[str, str]) -> tuple[History, bytes]:
    """Return what earlier attempts did, and the same as bytes for the other processes."""
    past, data = recall(cell.folder, cell.digest, cell.plan.replayable)
    check_contents(past.header.get("files", {}), files)
    start = {"known": past.known, "state": past.state_step}
    return past, json.dumps(start).encode() + b"\n" + data
