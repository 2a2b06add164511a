"""Shows the progress of a sweep: a bar on a terminal, otherwise lines."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from lozo_bench.runs.status import CellState, CellStatus


class Board:
    """Shows progress on standard error. A context manager, because the bar must be closed.

    Args:
        cells: the number of cells.
        columns: further columns of the bar, after its message.
    """

    def __init__(self, cells: int, *columns: ProgressColumn) -> None:
        self.cells, self.done, self.failed = cells, 0, 0
        self._console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
        self.live = self._console.is_terminal
        self._bar = Progress(
            TextColumn("cells"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[message]}"),
            *columns,
            console=self._console,
            disable=not self.live,
        )
        self._task = self._bar.add_task("sweep", total=cells, message="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text)

    def cell_ended(self, name: str, cell: CellStatus) -> None:
        """Count a cell that ended and print a line for it; on a terminal only if it failed."""
        self.done += 1
        self.failed += cell.state is CellState.failed
        if not self.live or cell.state is CellState.failed:
            message = cell.note or ("" if cell.score is None else f"test {cell.score:.4f}")
            self.line(f"{name} {cell.state.value}{': ' if message else ''}{message}")

    def update(self, message: str) -> None:
        """Redraw the bar with a message."""
        self._bar.update(self._task, completed=self.done, message=message)


class Screen(Board):
    """Shows cells that run on this machine, with a line when each begins.

    Args:
        cells: the number of cells.
    """

    def __init__(self, cells: int) -> None:
        super().__init__(cells, TimeRemainingColumn())
        self._begun = 0
        self._update()

    def started(self, name: str, gpu: str | None) -> None:
        """Show that a cell began."""
        self._begun += 1
        if not self.live:
            on = f" on GPU {gpu}" if gpu else ""
            self.line(f"[{self._begun}/{self.cells}] {name} started{on}")
        self._update()

    def ended(self, name: str, cell: CellStatus) -> None:
        """Show that a cell ended."""
        self.cell_ended(name, cell)
        self._update()

    def stopping(self) -> None:
        """Show that a signal asked the sweep to stop."""
        self.line("stopping: the running cells save their state; press Ctrl-C again to kill them")

    def _update(self) -> None:
        running = max(0, self._begun - self.done)
        self.update(f"{running} running, {self.failed} failed  ETA")
