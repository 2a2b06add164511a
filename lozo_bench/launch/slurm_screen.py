"""Shows the progress of a sweep in SLURM: a bar on a terminal, otherwise lines on changes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from lozo_bench.launch.screen import Board
from lozo_bench.launch.slurm_queue import JobState
from lozo_bench.runs.status import CellStatus

# Without a terminal, a line with the number of running and waiting jobs comes at most this often.
_LINE_EVERY_S = 30.0


class SlurmScreen(Board):
    """Shows how many cells run or wait in SLURM, and why they wait.

    Args:
        jobs: the number of jobs.
    """

    def __init__(self, jobs: int) -> None:
        super().__init__(jobs)
        self._last_line, self._last_line_at = "", 0.0

    def ended(self, name: str, job: str, cell: CellStatus) -> None:
        """Show that a cell ended."""
        self.cell_ended(f"{name} (job {job})", cell)

    def states(self, jobs: Sequence[JobState]) -> None:
        """Show the states of the jobs that have not ended."""
        message = summary(jobs)
        if self.failed:
            message += f", {self.failed} failed"
        self.update(message)
        now = time.monotonic()
        if (
            not self.live
            and message != self._last_line
            and now - self._last_line_at > _LINE_EVERY_S
        ):
            self.line(f"[{self.done}/{self.cells}] {message}")
            self._last_line, self._last_line_at = message, now


def summary(jobs: Sequence[JobState]) -> str:
    """Return ``2 running, 9 queued (Resources)``, with the most frequent reason for waiting."""
    queued = [job for job in jobs if job.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD")]
    message = f"{len(jobs) - len(queued)} running, {len(queued)} queued"
    reasons = Counter(job.reason for job in queued if job.reason not in ("", "None"))
    return f"{message} ({reasons.most_common(1)[0][0]})" if reasons else message
