"""How a sweep goes on: a bar on a terminal, elsewhere lines."""

from __future__ import annotations

from pathlib import Path
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

from lozo_bench.status import Cell, State


class Board:
    """Writes to standard error. A context manager: the bar is there while it is open.

    Args:
        cells: so many there are.
        columns: of the bar, behind how many are done; ``told`` is what `update` was given.
    """

    def __init__(self, cells: int, *columns: ProgressColumn) -> None:
        self.cells, self.done, self.failed = cells, 0, 0
        self._console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
        self.live = self._console.is_terminal
        self._bar = Progress(
            TextColumn("cells"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[told]}"),
            *columns,
            console=self._console,
            disable=not self.live,
        )
        self._task = self._bar.add_task("sweep", total=cells, told="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def line(self, text: str) -> None:
        """Say something."""
        self._console.print(text)

    def cell_ended(self, name: str, cell: Cell) -> None:
        """A cell ended; on a terminal only failures get a line."""
        self.done += 1
        self.failed += cell.state is State.failed
        if not self.live or cell.state is State.failed:
            told = cell.note if cell.score is None else f"test {cell.score:.4f}"
            self.line(f"{name} {cell.state.value}{': ' if told else ''}{told}")

    def update(self, told: str) -> None:
        """Draw the bar."""
        self._bar.update(self._task, completed=self.done, told=told)


class Screen(Board):
    """Of cells that run here: a line as each begins.

    Args:
        cells: so many there are.
    """

    def __init__(self, cells: int) -> None:
        super().__init__(cells, TimeRemainingColumn())
        self._begun = 0
        self._update()

    def started(self, folder: Path, gpu: str | None) -> None:
        """A cell began."""
        self._begun += 1
        if not self.live:
            on = f" on GPU {gpu}" if gpu else ""
            self.line(f"[{self._begun}/{self.cells}] {folder.name} started{on}")
        self._update()

    def ended(self, cell: Cell) -> None:
        """A cell ended."""
        self.cell_ended(cell.folder.name, cell)
        self._update()

    def stopping(self) -> None:
        """A signal came."""
        self.line("stopping: the running cells save their state; Ctrl-C again kills them")

    def _update(self) -> None:
        running = max(0, self._begun - self.done)
        self.update(f"{running} running, {self.failed} failed  ETA")
