"""How the cells below a folder stand: ``lozo-status outputs/``.

It reads files only, so it may be asked at any time and from any machine that sees them.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from lozo_bench.runs.lock import holder
from lozo_bench.runs.outcome import METRICS, RESULT, read_failure

_HYDRA = ".hydra"
# A row is a few hundred bytes; the last one is within these.
_TAIL_BYTES = 8192
# What belongs to a sweep, or would undo what a cell has done.
_NOT_ALONE = ("hydra.mode=", "hydra/launcher=", "hydra.launcher", "hydra/sweeper=", "hydra.sweeper")
_ANEW = ("rerun=", "+rerun=", "++rerun=")


class State(Enum):
    """How a cell stands.

    ``stopped`` is not finished, and nobody works on it; ``skipped`` is only what a launcher says of
    a cell that it had nothing to do for.
    """

    finished = "finished"
    skipped = "skipped"
    running = "running"
    stopped = "stopped"
    failed = "failed"


@dataclass(frozen=True, slots=True)
class Cell:
    """A row of the table.

    Args:
        folder: the cell's.
        state: how it stands.
        score: the task's metric on the test rows, if it is finished.
        note: why it failed, who runs it, how far it came.
        command: runs it alone, or goes on with it.
    """

    folder: Path
    state: State
    score: float | None
    note: str
    command: str


def cells(root: Path) -> list[Cell]:
    """Every cell at ``root`` or below it, by name."""
    found = []
    for folder, below, _ in os.walk(root):
        if _is_cell(Path(folder)):
            found.append(Path(folder))
            below.clear()
        below[:] = [name for name in below if not name.startswith(".")]
    return [look(folder) for folder in sorted(found)]


def look(folder: Path) -> Cell:
    """How the cell in ``folder`` stands."""
    command = command_of(folder)
    who = holder(folder)
    if who is not None:
        return Cell(folder, State.running, None, f"{_progress(folder)}, {who}", command)
    failure = read_failure(folder)
    if failure is not None:
        return Cell(folder, State.failed, None, failure.reason, command)
    if not (folder / RESULT).exists():
        return Cell(folder, State.stopped, None, _progress(folder), command)
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        score = float(next(iter(result["metrics"]["test"].values())))
    except (ValueError, KeyError, TypeError):
        note = f"{RESULT} cannot be read; run again with rerun=all"
        return Cell(folder, State.failed, None, note, command)
    return Cell(folder, State.finished, score, "", command)


def command_of(folder: Path) -> str:
    """The command that runs the cell in ``folder`` alone, ready to paste; empty if unknown."""
    hydra = _read_yaml(folder / _HYDRA / "hydra.yaml").get("hydra")
    if hydra is None:
        return ""
    overrides = hydra["overrides"]
    alone = [text for text in overrides["hydra"] if not text.lstrip("+~").startswith(_NOT_ALONE)]
    if hydra["mode"] == "MULTIRUN":  # which has no use for it
        alone = [text for text in alone if not text.startswith("hydra.run.dir=")]
    words = ["lozo-train", *_flags(hydra)]
    words += [text for text in overrides["task"] if not text.startswith(_ANEW)] + alone
    cwd = hydra["runtime"]["cwd"]
    there = "" if Path(cwd) == Path.cwd() else f"cd {shlex.quote(cwd)} && "
    return there + shlex.join(words)


def values_of(folder: Path) -> str:
    """Which file a cell's values are from that were not typed, in a line; empty if unknown."""
    hydra = _read_yaml(folder / _HYDRA / "hydra.yaml").get("hydra")
    if hydra is None:
        return ""
    runtime = hydra["runtime"]
    name, optimizer = f"tuned/{runtime['choices']['tuned']}.yaml", runtime["choices"]["optimizer"]
    folders = [source["path"] for source in runtime["config_sources"] if source["schema"] == "file"]
    if any((Path(place) / name).is_file() for place in folders):
        return f"what was not typed is from conf/{name}"
    return f"there is no conf/{name}: what was not typed is from conf/optimizer/{optimizer}.yaml"


def table(found: Sequence[Cell]) -> Table:
    """One row a cell, named from the folder that they share."""
    root = shared_root(found)
    made = Table(title=str(root), title_justify="left")
    made.add_column("cell", overflow="fold")
    made.add_column("status")
    made.add_column("test", justify="right")
    made.add_column("note", overflow="fold")
    for cell in found:
        score = "" if cell.score is None else f"{cell.score:.4f}"
        note = "see below" if cell.state is State.failed else cell.note
        made.add_row(str(cell.folder.relative_to(root)), cell.state.value, score, note)
    return made


def print_table(found: Sequence[Cell]) -> None:
    """The table, the counts, and why each cell failed with what to type, to standard output."""
    if not found:
        return
    console = Console(markup=False, highlight=False, soft_wrap=True)
    if not console.is_terminal:  # nothing is cut short in a file
        console = Console(markup=False, highlight=False, soft_wrap=True, width=1000)
    console.print(table(found))
    console.print(counts(found))
    root = shared_root(found)
    for state, title in {
        State.failed: "failed; each alone:",
        State.stopped: "stopped; what goes on with it:",
    }.items():
        chosen = [cell for cell in found if cell.state is state]
        if chosen:
            console.print(f"\n{title}")
        for cell in chosen:
            console.print(f"  {cell.folder.relative_to(root)}: {cell.note}\n    {cell.command}")


def counts(found: Sequence[Cell]) -> str:
    """``12 cells: 10 finished, 2 failed``."""
    by_state = Counter(cell.state for cell in found)
    told = ", ".join(f"{by_state[state]} {state.value}" for state in State if by_state[state])
    return f"{len(found)} cell{'s' if len(found) != 1 else ''}: {told}"


def shared_root(found: Sequence[Cell]) -> Path:
    """The deepest folder that all cells are in."""
    return Path(os.path.commonpath([cell.folder.parent for cell in found]))


def _is_cell(folder: Path) -> bool:
    return (folder / _HYDRA / "config.yaml").is_file()


def _flags(hydra: Mapping[str, Any]) -> list[str]:
    """The options of the command line that a config was found with."""
    flags = [
        f"--config-dir={source['path']}"
        for source in hydra["runtime"]["config_sources"]
        if source["provider"] == "command-line"
    ]
    name = hydra["job"]["config_name"]
    return flags if name == "config" else [*flags, f"--config-name={name}"]


def _progress(folder: Path) -> str:
    steps = _read_yaml(folder / _HYDRA / "config.yaml").get("steps", "?")
    return f"step {_last_step(folder / METRICS)} of {steps}"


def _last_step(path: Path) -> int:
    """The step of the last whole row; 0 before the first."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]  # what follows the last newline is half a row
    except FileNotFoundError:
        return 0
    return int(json.loads(lines[-1])["step"]) if lines else 0


def _read_yaml(path: Path) -> Mapping[str, Any]:
    """A YAML file of Hydra's; empty if it is not there, or only half written as yet."""
    try:
        text = path.read_text(encoding="utf-8")
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        read = yaml.load(text, Loader=loader)  # type: ignore[no-untyped-call]
    except (FileNotFoundError, yaml.YAMLError):
        return {}
    return read if isinstance(read, dict) else {}


def main() -> None:
    """``lozo-status [DIR]``. Exit code 1 if a cell failed, 2 if there is none."""
    parser = argparse.ArgumentParser(
        prog="lozo-status", description="Print how the runs below a folder stand."
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("outputs"))
    folder = parser.parse_args().folder
    if not folder.is_dir():
        parser.exit(2, f"{folder}: no such folder; give the one that holds the runs\n")
    found = cells(folder.resolve())
    if not found:
        parser.exit(2, f"{folder}: no runs in it, nor below it\n")
    print_table(found)
    sys.exit(1 if any(cell.state is State.failed for cell in found) else 0)


if __name__ == "__main__":
    main()
