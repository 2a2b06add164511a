"""The status of the cells below a folder, as ``lozo-status outputs/`` prints it.

It only reads files, so it can be called at any time and from any machine that sees them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lozo_bench.errors import UserError, counted, printable
from lozo_bench.runs.apart import IN_PATH, labels
from lozo_bench.runs.blocks import header_of
from lozo_bench.runs.choices import choices_of
from lozo_bench.runs.files import parse_json, read_end
from lozo_bench.runs.hydra_files import HYDRA, command_of, is_cell, read_yaml
from lozo_bench.runs.lock import lock_owner
from lozo_bench.runs.outcome import METRICS, read_failure
from lozo_bench.runs.planned import walk
from lozo_bench.runs.result_file import load_metrics

# A row has a few hundred bytes, so the last one is within this many bytes of the end.
_TAIL_BYTES = 8192
# A journal's header has some thousand bytes, and little more with the longest config.
_NONE: Mapping[str, Sequence[str]] = {}


class CellState(Enum):
    """The status of a cell.

    ``stopped``: it is not finished, and no process runs it. ``skipped``: a launcher, and nothing
    else, reports this for a cell that it did not need to run.
    """

    finished = "finished"
    skipped = "skipped"
    running = "running"
    stopped = "stopped"
    failed = "failed"


@dataclass(frozen=True, slots=True)
class CellStatus:
    """A row of the table.

    Args:
        folder: the cell's folder.
        state: its status.
        score: the task's metric on the test rows, if the cell is finished.
        note: why it failed, which process runs it, or how far it got.
        command: the command that runs it alone or resumes it.
    """

    folder: Path
    state: CellState
    score: float | None
    note: str
    command: str


def statuses_below(root: Path) -> list[CellStatus]:
    """Return every cell at ``root`` or below it, sorted by path.

    A folder that cannot be read is listed as a failed cell.
    """
    found: list[Path] = []
    unreadable: list[OSError] = []
    for folder, below in walk(root, unreadable.append):
        if is_cell(folder):
            found.append(folder)
            below.clear()
    cells = [status_of(folder) for folder in found]
    cells += [
        CellStatus(Path(error.filename), CellState.failed, None, f"cannot be read: {error}", "")
        for error in unreadable
    ]
    return sorted(cells, key=lambda cell: cell.folder)


def status_of(folder: Path) -> CellStatus:
    """Return the status of the cell in ``folder``; a damaged one has failed and says why."""
    command = command_of(folder)
    try:
        return _status_of(folder, command)
    except (UserError, OSError) as error:
        return CellStatus(folder, CellState.failed, None, str(error), command)


def _status_of(folder: Path, command: str) -> CellStatus:
    owner = lock_owner(folder)
    if owner is not None:
        return CellStatus(folder, CellState.running, None, f"{_progress(folder)}, {owner}", command)
    failure = read_failure(folder)
    if failure is not None:
        return CellStatus(folder, CellState.failed, None, failure.reason, command)
    metrics = load_metrics(folder)
    if metrics is None:
        return CellStatus(folder, CellState.stopped, None, _progress(folder), command)
    score = next(iter(metrics["test"].values()))
    return CellStatus(folder, CellState.finished, score, "", command)


def table(found: Sequence[CellStatus], costs: Mapping[str, Sequence[str]] = _NONE) -> Table:
    """Return the table, with one row per cell, named relative to the folder that all share.

    A column says what sets cells apart, if their names do not.

    Args:
        found: the cells.
        costs: further columns by their titles, with a text for each cell.
    """
    root = shared_root(found)
    apart = labels(choices_of([cell.folder for cell in found]), IN_PATH)
    view = Table(title=printable(str(root)), title_justify="left")
    view.add_column("cell", overflow="fold")
    if any(apart):
        view.add_column("with", overflow="fold")
    view.add_column("status")
    view.add_column("test", justify="right")
    for title in costs:
        view.add_column(title, justify="right")
    view.add_column("note", overflow="fold")
    for number, (cell, label) in enumerate(zip(found, apart, strict=True)):
        score = "" if cell.score is None else f"{cell.score:.4f}"
        note = "see below" if cell.state is CellState.failed else printable(cell.note)
        name = [_shown(cell.folder, root), *([printable(label)] if any(apart) else [])]
        view.add_row(
            *name, cell.state.value, score, *(texts[number] for texts in costs.values()), note
        )
    return view


def print_table(
    found: Sequence[CellStatus], waiting: int = 0, costs: Mapping[str, Sequence[str]] = _NONE
) -> None:
    """Print the table, the counts, and the reason and command of each failed or stopped cell.

    Args:
        found: the cells that have begun.
        waiting: how many have not.
        costs: further columns of the table.
    """
    if not found:
        return
    console = lasting_console()
    console.print(table(found, costs))
    console.print(counts(found, waiting))
    print_unfinished(console, found)


def lasting_console() -> Console:
    """Return a console for standard output; in a file, no line is wrapped or cut."""
    console = Console(markup=False, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, soft_wrap=True, width=1000)
    return console


def print_unfinished(console: Console, found: Sequence[CellStatus]) -> None:
    """Print the reason and command of each cell that failed or was stopped."""
    root = shared_root(found)
    names = {}
    if any(cell.state in (CellState.failed, CellState.stopped) for cell in found):
        apart = labels(choices_of([cell.folder for cell in found]), IN_PATH)
        for cell, label in zip(found, apart, strict=True):
            names[cell.folder] = _shown(cell.folder, root) + (f" ({label})" if label else "")
    for state, title in {
        CellState.failed: "failed; the command that runs each again:",
        CellState.stopped: "stopped; the command that resumes each:",
    }.items():
        chosen = [cell for cell in found if cell.state is state]
        if chosen:
            console.print(f"\n{title}")
        for cell in chosen:
            note = printable(cell.note).replace("\n", "\n    ")
            name = printable(names[cell.folder])
            console.print(f"  {name}: {note}\n    {printable(cell.command)}")


def counts(found: Sequence[CellStatus], waiting: int = 0) -> str:
    """Return ``12 cells: 9 finished, 2 failed, 1 not begun``."""
    by_state = Counter(cell.state for cell in found)
    parts = ", ".join(f"{by_state[state]} {state.value}" for state in CellState if by_state[state])
    parts += f", {waiting} not begun" if waiting else ""
    return f"{counted(len(found) + waiting, 'cell')}: {parts}"


def shared_root(found: Sequence[CellStatus]) -> Path:
    """Return the deepest folder that contains all cells."""
    return Path(os.path.commonpath([cell.folder.parent for cell in found]))


def _shown(folder: Path, root: Path) -> str:
    return printable(str(folder.relative_to(root)))


def _progress(folder: Path) -> str:
    steps = _steps(folder)
    return f"step {_last_step(folder / METRICS)} of {steps}" if steps else "evaluation only"


def _steps(folder: Path) -> Any:
    """Return the number of steps, from the run's journal; a former one's are in a config.

    The config's number is not the run's if the method itself fixes it.
    """
    header = header_of(folder)
    if "steps" in header:
        return header["steps"]
    begun = header.get("config")
    config = begun if isinstance(begun, dict) else read_yaml(folder / HYDRA / "config.yaml")
    return config.get("steps", "?")


def _last_step(path: Path) -> int:
    """Return the step of the last complete row, or 0 if there is none."""
    lines = read_end(path, _TAIL_BYTES).split(b"\n")[:-1]  # what follows the last one is incomplete
    for line in reversed(lines):
        with suppress(ValueError, LookupError, TypeError, OverflowError):
            return int(parse_json(line)["step"])
    return 0
