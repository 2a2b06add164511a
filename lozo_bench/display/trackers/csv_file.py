"""``metrics.csv``: the rows of ``metrics.jsonl`` as one table, for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from lozo_bench.display.trackers.base import About
from lozo_bench.runs.atomic import write_text
from lozo_bench.runs.files import read_file
from lozo_bench.runs.outcome import METRICS
from lozo_bench.runs.row import read_row


class CsvFile:
    """Writes ``metrics.csv`` again after each evaluation and at the end of the run.

    The file is made from ``metrics.jsonl``, so that it has a column for every number of any row,
    and each row once when the run was interrupted.
    """

    failures: tuple[type[Exception], ...] = ()

    def __init__(self, about: About) -> None:
        self._folder, self._written = about.folder, b""

    def recorded(self, name: str) -> int:
        """Return -1: the file is made from all rows."""
        return -1

    def log(self, step: int, numbers: Mapping[str, float | str]) -> None:
        """Write the file if the numbers are those of an evaluation."""
        if any(key.startswith("dev/") for key in numbers):
            self._write()

    def summarize(self, numbers: Mapping[str, float]) -> None:
        """Do nothing: ``result.json`` has the final numbers."""

    def figure(self, path: Path) -> None:
        """Do nothing: the figure is in the same folder."""

    def close(self, failed: bool) -> None:
        """Write the file."""
        self._write()

    def _write(self) -> None:
        data = read_file(self._folder / METRICS) or b""
        if data == self._written:  # as for each evaluation that a resumed run sends again
            return
        self._written = data
        rows = [row for line in data.split(b"\n") if (row := read_row(line)) is not None]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        write_text(self._folder / "metrics.csv", text.getvalue())
