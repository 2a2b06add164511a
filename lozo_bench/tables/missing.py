"""Says which runs of an experiment are missing, and the commands that make them."""

from __future__ import annotations

from collections.abc import Sequence

from lozo_bench.runs.status import CellState, status_of
from lozo_bench.tables.cells import Run

LISTED = 10


def missing_report(missing: Sequence[Run], commands: Sequence[str], every: bool) -> str:
    """Return what is missing, and the commands.

    Args:
        missing: the runs without a result.
        commands: the commands that make all of them.
        every: whether to list all runs, and not the first few.
    """
    listed = missing if every else missing[:LISTED]
    lines = [f"\n{len(missing)} runs are missing:" if len(missing) > 1 else "\n1 run is missing:"]
    lines += [f"  {run.command}{_state_note(run)}" for run in listed]
    if len(listed) < len(missing):
        lines.append(f"  and {len(missing) - len(listed)} more (--missing lists them)")
    lines += ["all of them:", *(f"  {command}" for command in commands)]
    return "\n".join(lines)


def _state_note(run: Run) -> str:
    """Return a run's state as a comment after its command; empty if the run has not started."""
    if not run.folder.is_dir():
        return ""
    cell = status_of(run.folder)
    return f"  # {cell.state.value}{': ' if cell.note else ''}{cell.note}" if cell.state in (
        CellState.failed, CellState.stopped, CellState.running
    ) else ""  # fmt: skip
