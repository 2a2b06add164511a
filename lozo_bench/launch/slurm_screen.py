"""How a sweep goes on in SLURM: a bar on a terminal, elsewhere a line when something changes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from lozo_bench.launch.screen import Board
from lozo_bench.launch.slurm_queue import Standing
from lozo_bench.status import Cell

# Without a terminal, so often at most it is said how many run and wait.
_LINE_EVERY_S = 30.0


class SlurmScreen(Board):
    """Of cells that are SLURM's: what is queued, and why.

    Args:
        jobs: so many there are.
    """

    def __init__(self, jobs: int) -> None:
        super().__init__(jobs)
        self._told, self._told_at = "", 0.0

    def ended(self, job: str, cell: Cell) -> None:
        """A cell ended."""
        self.cell_ended(f"{cell.folder.name} (job {job})", cell)

    def standings(self, jobs: Sequence[Standing]) -> None:
        """How the jobs stand that have not ended."""
        told = summary(jobs)
        if self.failed:
            told += f", {self.failed} failed"
        self.update(told)
        now = time.monotonic()
        if not self.live and told != self._told and now - self._told_at > _LINE_EVERY_S:
            self.line(f"[{self.done}/{self.cells}] {told}")
            self._told, self._told_at = told, now


def summary(jobs: Sequence[Standing]) -> str:
    """``2 running, 9 queued (Resources)``: with the most frequent reason to wait."""
    queued = [job for job in jobs if job.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD")]
    told = f"{len(jobs) - len(queued)} running, {len(queued)} queued"
    reasons = Counter(job.reason for job in queued if job.reason not in ("", "None"))
    return f"{told} ({reasons.most_common(1)[0][0]})" if reasons else told
