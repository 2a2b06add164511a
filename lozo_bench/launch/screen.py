"""How a sweep goes on: a bar on a terminal, elsewhere a line for each cell."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lozo_bench.status import Cell, State


class Screen:
    """Writes to standard error. A context manager: the bar is there while it is open.

    Args:
        cells: so many there are.
    """

    def __init__(self, cells: int) -> None:
        self._cells, self._done, self._begun = cells, 0, 0
        self._failed = 0
        self._console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
        self._live = self._console.is_terminal
        self._bar = Progress(
            TextColumn("cells"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[running]} running, {task.fields[failed]} failed  ETA"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._live,
        )
        self._task = self._bar.add_task("sweep", total=cells, running=0, failed=0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def started(self, folder: Path, gpu: str | None) -> None:
        """A cell began."""
        self._begun += 1
        if not self._live:
            on = f" on GPU {gpu}" if gpu else ""
            self._line(f"[{self._begun}/{self._cells}] {folder.name} started{on}")
        self._update()

    def ended(self, cell: Cell) -> None:
        """A cell ended; on a terminal only failures get a line."""
        self._done += 1
        self._failed += cell.state is State.failed
        if not self._live or cell.state is State.failed:
            told = cell.note if cell.accuracy is None else f"test {cell.accuracy:.4f}"
            self._line(f"{cell.folder.name} {cell.state.value}{': ' if told else ''}{told}")
        self._update()

    def stopping(self) -> None:
        """A signal came."""
        self._line("stopping: the running cells save their state; Ctrl-C again kills them")

    def _line(self, text: str) -> None:
        self._console.print(text)

    def _update(self) -> None:
        self._bar.update(
            self._task,
            completed=self._done,
            running=max(0, self._begun - self._done),
            failed=self._failed,
        )
