"""The cells of a sweep: what is to run, and how it ended, whoever ran it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from lozo_bench.runs.lock import holder
from lozo_bench.runs.outcome import Code, Failure, write_failure
from lozo_bench.status import Cell, State, look


@dataclass(frozen=True, slots=True)
class Planned:
    """A cell to run: its config with Hydra's, its folder, and what was asked for."""

    config: DictConfig
    folder: Path
    overrides: Sequence[str]

    def look(self) -> Cell:
        """How it stands; its command is from here if it has not come as far as Hydra's files."""
        cell = look(self.folder)
        return cell if cell.command else dataclasses.replace(cell, command=command(self.overrides))


@dataclass(frozen=True, slots=True)
class Ended:
    """A cell that ran, and how it ended."""

    cell: Cell
    code: Code


def command(overrides: Sequence[str]) -> str:
    """The command that runs a cell alone, by what its sweep said of it."""
    return shlex.join(["lozo-train", *overrides])


def ended(cell: Cell, state: State, note: str, code: Code) -> Ended:
    """A cell as it stands, with what the launcher knows better."""
    return Ended(dataclasses.replace(cell, state=state, note=note), code)


def left_alone(cell: Cell, code: Code) -> Ended:
    """A cell with nothing to do, by its code: finished before, busy or skipped."""
    if code is Code.busy:
        who = holder(cell.folder) or "another process, which has ended since"
        return ended(cell, State.skipped, f"run by {who}", code)
    note = "finished before" if code is Code.finished else "did not fail before"
    return ended(cell, State.skipped, note, code)


def failed(cell: Cell, reason: str) -> Ended:
    """A cell that could not say itself why it has no result: it is written down for it."""
    write_failure(cell.folder, Failure(reason, Code.defect, cell.command))
    return ended(cell, State.failed, reason, Code.defect)
