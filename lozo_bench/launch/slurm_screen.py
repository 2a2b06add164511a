"""How a sweep goes on in SLURM: a bar on a terminal, elsewhere a line when something changes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from lozo_bench.launch.slurm_queue import Standing
from lozo_bench.status import Cell, State

# Without a terminal, so often at most it is said how many run and wait.
_LINE_EVERY_S = 30.0


class SlurmScreen:
    """Writes to standard error. A context manager: the bar is there while it is open.

    Args:
        jobs: so many there are.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs, self._done, self._failed = jobs, 0, 0
        self._told, self._told_at = "", 0.0
        self._console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
        self._live = self._console.is_terminal
        self._bar = Progress(
            TextColumn("cells"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[told]}"),
            console=self._console,
            disable=not self._live,
        )
        self._task = self._bar.add_task("sweep", total=jobs, told="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def line(self, text: str) -> None:
        """Say something."""
        self._console.print(text)

    def ended(self, job: str, cell: Cell) -> None:
        """A cell ended; on a terminal only failures get a line."""
        self._done += 1
        self._failed += cell.state is State.failed
        if not self._live or cell.state is State.failed:
            told = cell.note if cell.accuracy is None else f"test {cell.accuracy:.4f}"
            self.line(f"{cell.folder.name} (job {job}) {cell.state.value}: {told}")

    def standings(self, jobs: Sequence[Standing]) -> None:
        """How the jobs stand that have not ended."""
        told = summary(jobs)
        if self._failed:
            told += f", {self._failed} failed"
        self._bar.update(self._task, completed=self._done, told=told)
        now = time.monotonic()
        if not self._live and told != self._told and now - self._told_at > _LINE_EVERY_S:
            self.line(f"[{self._done}/{self._jobs}] {told}")
            self._told, self._told_at = told, now


def summary(jobs: Sequence[Standing]) -> str:
    """``2 running, 9 queued (Resources)``: with the most frequent reason to wait."""
    queued = [job for job in jobs if job.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD")]
    told = f"{len(jobs) - len(queued)} running, {len(queued)} queued"
    reasons = Counter(job.reason for job in queued if job.reason not in ("", "None"))
    return f"{told} ({reasons.most_common(1)[0][0]})" if reasons else told
