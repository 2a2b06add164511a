"""The cells of a sweep, before and after they ran, for all launchers."""

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
    """A cell to run: its config with the ``hydra`` node, its folder and its overrides."""

    config: DictConfig
    folder: Path
    overrides: Sequence[str]

    def look(self) -> Cell:
        """Return the cell's status.

        Its command is composed from the overrides if Hydra has not yet written the cell's files.
        """
        cell = look(self.folder)
        return cell if cell.command else dataclasses.replace(cell, command=command(self.overrides))


@dataclass(frozen=True, slots=True)
class Ended:
    """A cell that needs no further work: it ran, or there was nothing to run."""

    cell: Cell
    code: Code


def command(overrides: Sequence[str]) -> str:
    """Return the command that runs a cell alone, from the cell's overrides in its sweep."""
    return shlex.join(["lozo-train", *overrides])


def ended_as(cell: Cell, state: State, note: str, code: Code) -> Ended:
    """Return a cell with the state and note that the launcher knows better than its files do."""
    return Ended(dataclasses.replace(cell, state=state, note=note), code)


def skipped(cell: Cell, code: Code) -> Ended:
    """Return a cell that the launcher did not run: it is finished, busy or skipped."""
    if code is Code.busy:
        owner = holder(cell.folder) or "another process, which has ended since"
        return ended_as(cell, State.skipped, f"run by {owner}", code)
    note = "finished before" if code is Code.finished else "did not fail before"
    return ended_as(cell, State.skipped, note, code)


def failed(cell: Cell, reason: str) -> Ended:
    """Return a failed cell, and write the failure that the cell could not write itself."""
    write_failure(cell.folder, Failure(reason, Code.defect, cell.command))
    return ended_as(cell, State.failed, reason, Code.defect)
