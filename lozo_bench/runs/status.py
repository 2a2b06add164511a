"""The status of the cells below a folder: ``lozo-status outputs/``.

It only reads files, so it can be called at any time and from any machine that sees them.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
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
from lozo_bench.runs.blocks import read_header
from lozo_bench.runs.files import parse_json, parse_yaml, read_end, read_file, read_start
from lozo_bench.runs.lock import lock_owner
from lozo_bench.runs.outcome import JOURNAL, METRICS, read_failure
from lozo_bench.runs.result_file import load_metrics

HYDRA = ".hydra"  # the folder with the config and the command of a run
# A row has a few hundred bytes, so the last one is within this many bytes of the end.
_TAIL_BYTES = 8192
# A journal's header has some thousand bytes, and little more with the longest config.
_HEADER_BYTES = 2**20
# Overrides that belong to the sweep, and those that would delete what a cell has done.
_SWEEP_OVERRIDES = (
    "hydra.mode=",
    "hydra/launcher=",
    "hydra.launcher",
    "hydra/sweeper=",
    "hydra.sweeper",
)
_RERUN_OVERRIDES = ("rerun=", "+rerun=", "++rerun=")
# Groups whose options may set values of an optimizer too.
_SETTING = ("method", "experiment", "variant")


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
    for folder, below, _ in os.walk(root, onerror=unreadable.append):
        if is_cell(Path(folder)):
            found.append(Path(folder))
            below.clear()
        below[:] = [name for name in below if not name.startswith(".")]
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


def command_of(folder: Path) -> str:
    """Return the command that runs the cell in ``folder`` alone, or "" if it is unknown."""
    with suppress(LookupError, TypeError, AttributeError):  # a damaged or unfinished file
        return _command_of(_read_yaml(folder / HYDRA / "hydra.yaml")["hydra"])
    return ""


def _command_of(hydra: Mapping[str, Any]) -> str:
    overrides = hydra["overrides"]
    alone = [
        text for text in overrides["hydra"] if not text.lstrip("+~").startswith(_SWEEP_OVERRIDES)
    ]
    if hydra["mode"] == "MULTIRUN":  # a sweep does not use hydra.run.dir
        alone = [text for text in alone if not text.startswith("hydra.run.dir=")]
    words = ["lozo-train", *_flags(hydra)]
    words += [text for text in overrides["task"] if not text.startswith(_RERUN_OVERRIDES)] + alone
    cwd = hydra["runtime"]["cwd"]
    prefix = "" if Path(cwd) == Path.cwd() else f"cd {shlex.quote(cwd)} && "
    return prefix + shlex.join(words)


def values_of(folder: Path) -> str:
    """Return a line that names the files with a cell's default values; empty if unknown."""
    with suppress(LookupError, TypeError, AttributeError):  # a damaged or unfinished file
        return _values_of(_read_yaml(folder / HYDRA / "hydra.yaml")["hydra"])
    return ""


def _values_of(hydra: Mapping[str, Any]) -> str:
    runtime = hydra["runtime"]
    choices = runtime["choices"]
    name = f"tuned/{choices['tuned']}.yaml"
    folders = [source["path"] for source in runtime["config_sources"] if source["schema"] == "file"]
    tuned = any((Path(directory) / name).is_file() for directory in folders)
    files = [f"conf/{name}" if tuned else f"conf/optimizer/{choices['optimizer']}.yaml"]
    others = _SETTING[1:] if tuned else _SETTING  # a tuned file overrides the method's
    files += [f"conf/{group}/{choices[group]}.yaml" for group in others if choices.get(group)]
    absent = "" if tuned else f"there is no conf/{name}: "
    return f"{absent}values not given on the command line are from {' and '.join(files)}"


def table(found: Sequence[CellStatus]) -> Table:
    """Return the table, with one row per cell, named relative to the folder that all share."""
    root = shared_root(found)
    view = Table(title=printable(str(root)), title_justify="left")
    view.add_column("cell", overflow="fold")
    view.add_column("status")
    view.add_column("test", justify="right")
    view.add_column("note", overflow="fold")
    for cell in found:
        score = "" if cell.score is None else f"{cell.score:.4f}"
        note = "see below" if cell.state is CellState.failed else printable(cell.note)
        view.add_row(_shown(cell.folder, root), cell.state.value, score, note)
    return view


def print_table(found: Sequence[CellStatus]) -> None:
    """Print the table, the counts, and the reason and command of each failed or stopped cell."""
    if not found:
        return
    console = Console(markup=False, highlight=False, soft_wrap=True)
    if not console.is_terminal:  # in a file, no line is wrapped or cut
        console = Console(markup=False, highlight=False, soft_wrap=True, width=1000)
    console.print(table(found))
    console.print(counts(found))
    root = shared_root(found)
    for state, title in {
        CellState.failed: "failed; the command that runs each again:",
        CellState.stopped: "stopped; the command that resumes each:",
    }.items():
        chosen = [cell for cell in found if cell.state is state]
        if chosen:
            console.print(f"\n{title}")
        for cell in chosen:
            note = printable(cell.note).replace("\n", "\n    ")
            console.print(f"  {_shown(cell.folder, root)}: {note}\n    {printable(cell.command)}")


def counts(found: Sequence[CellStatus]) -> str:
    """Return ``12 cells: 10 finished, 2 failed``."""
    by_state = Counter(cell.state for cell in found)
    parts = ", ".join(f"{by_state[state]} {state.value}" for state in CellState if by_state[state])
    return f"{counted(len(found), 'cell')}: {parts}"


def shared_root(found: Sequence[CellStatus]) -> Path:
    """Return the deepest folder that contains all cells."""
    return Path(os.path.commonpath([cell.folder.parent for cell in found]))


def _shown(folder: Path, root: Path) -> str:
    return printable(str(folder.relative_to(root)))


def is_cell(folder: Path) -> bool:
    """Return whether the folder has the config of a run."""
    # Path.is_file raises if the folder cannot be entered.
    return os.path.isfile(folder / HYDRA / "config.yaml")  # noqa: PTH113


def _flags(hydra: Mapping[str, Any]) -> list[str]:
    """Return the command-line options with which Hydra found the config."""
    flags = [
        f"--config-dir={source['path']}"
        for source in hydra["runtime"]["config_sources"]
        if source["provider"] == "command-line"
    ]
    name = hydra["job"]["config_name"]
    return flags if name == "config" else [*flags, f"--config-name={name}"]


def _progress(folder: Path) -> str:
    return f"step {_last_step(folder / METRICS)} of {_steps(folder)}"


def _steps(folder: Path) -> Any:
    """Return the number of steps, from the run's journal; a former one's are in a config.

    The config's number is not the run's if the method itself fixes it.
    """
    header = read_header(read_start(folder / JOURNAL, _HEADER_BYTES))
    if "steps" in header:
        return header["steps"]
    begun = header.get("config")
    config = begun if isinstance(begun, dict) else _read_yaml(folder / HYDRA / "config.yaml")
    return config.get("steps", "?")


def _last_step(path: Path) -> int:
    """Return the step of the last complete row, or 0 if there is none."""
    lines = read_end(path, _TAIL_BYTES).split(b"\n")[:-1]  # what follows the last one is incomplete
    for line in reversed(lines):
        with suppress(ValueError, LookupError, TypeError, OverflowError):
            return int(parse_json(line)["step"])
    return 0


def _read_yaml(path: Path) -> Mapping[str, Any]:
    """Read a YAML file of Hydra's; return {} if it is missing, damaged or only partly written."""
    try:
        read = parse_yaml(read_file(path) or b"")
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def main() -> None:
    """Run ``lozo-status [DIR]``. Exit code 1 if a cell failed, 2 if there are no cells."""
    parser = argparse.ArgumentParser(
        prog="lozo-status", description="Print the status of the runs below a folder."
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("outputs"))
    folder = parser.parse_args().folder
    if not folder.is_dir():
        parser.exit(2, f"{folder}: no such folder; give the folder that contains the runs\n")
    found = statuses_below(folder.resolve())
    if not found:
        parser.exit(2, f"{folder}: no runs in it or below it\n")
    print_table(found)
    sys.exit(1 if any(cell.state is CellState.failed for cell in found) else 0)


if __name__ == "__main__":
    main()
