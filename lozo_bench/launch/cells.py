"""The cells of a sweep, before and after they ran, for all launchers."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from lozo_bench.config.secrets import mask
from lozo_bench.runs.lock import lock_owner
from lozo_bench.runs.outcome import Code, Failure, write_failure
from lozo_bench.runs.status import CellState, CellStatus, status_of


@dataclass(frozen=True, slots=True)
class Planned:
    """A cell to run.

    Args:
        config: its config, with the ``hydra`` node.
        folder: its folder.
        overrides: those that make it a cell of its sweep.
        label: what sets it apart from the others and its folder's name does not say.
    """

    config: DictConfig
    folder: Path
    overrides: Sequence[str]
    label: str = ""

    @property
    def name(self) -> str:
        """The name of the folder, and what sets the cell apart."""
        return f"{self.folder.name} ({self.label})" if self.label else self.folder.name

    def status(self) -> CellStatus:
        """Return the cell's status.

        Its command is composed from the overrides if Hydra has not yet written the cell's files.
        """
        cell = status_of(self.folder)
        return (
            cell
            if cell.command
            else dataclasses.replace(cell, command=cell_command(self.overrides))
        )


@dataclass(frozen=True, slots=True)
class Ended:
    """A cell that needs no further work: it ran, or there was nothing to run."""

    cell: CellStatus
    code: Code


def cell_command(overrides: Sequence[str]) -> str:
    """Return the command that runs a cell alone, from the cell's overrides in its sweep."""
    return shlex.join(["lozo-train", *overrides])


def ended_as(cell: CellStatus, state: CellState, note: str, code: Code) -> Ended:
    """Return a cell with the state and note that the launcher knows better than its files do."""
    return Ended(dataclasses.replace(cell, state=state, note=note), code)


def skipped(cell: CellStatus, code: Code) -> Ended:
    """Return a cell that the launcher did not run: it is finished, busy or skipped."""
    if code is Code.busy:
        owner = lock_owner(cell.folder) or "another process, which has ended since"
        return ended_as(cell, CellState.skipped, f"run by {owner}", code)
    note = "finished before" if code is Code.finished else "did not fail before"
    return ended_as(cell, CellState.skipped, note, code)


def failed(cell: CellStatus, reason: str) -> Ended:
    """Return a failed cell, and write the failure that the cell could not write itself."""
    reason = mask(reason)
    write_failure(cell.folder, Failure(reason, Code.defect, cell.command))
    return ended_as(cell, CellState.failed, reason, Code.defect)
