"""Collects what a report shows from the folders of runs, as plain values for JSON."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lozo_bench
from lozo_bench.errors import UserError, printable
from lozo_bench.report.contents import Contents, read_contents
from lozo_bench.report.one_run import record
from lozo_bench.report.sweeps import shown, sweeps_of
from lozo_bench.report.tables_of_values import Environments, Figures, Values
from lozo_bench.runs.status import CellStatus, statuses_below


def collect(folder: Path) -> dict[str, Any]:
    """Return what a report shows of all runs below a folder.

    Raises:
        UserError: there is no such folder, or no run in it.
    """
    return Collector(folder).collect()


class Collector:
    """Reads the runs below a folder, again and again; folders that did not change only once."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give the folder that contains the runs")
        self.folder = folder
        self._read: dict[Path, tuple[object, Contents]] = {}

    def collect(self) -> dict[str, Any]:
        """Return what a report shows now.

        Raises:
            UserError: there is no run in the folder.
        """
        cells = statuses_below(self.folder.resolve())
        if not cells:
            raise UserError(f"{self.folder}: no runs in it or below it")
        report = _report(str(self.folder), [self._contents(cell) for cell in cells])
        text = json.dumps(report, sort_keys=True, default=str)
        version = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()
        return {"version": version, "made": time.strftime("%Y-%m-%d %H:%M:%S"), **report}

    def _contents(self, cell: CellStatus) -> Contents:
        now = (cell, _files(cell.folder))
        before = self._read.get(cell.folder)
        if before is None or before[0] != now:
            before = now, read_contents(cell)
            self._read[cell.folder] = before
        return before[1]


def _files(folder: Path) -> list[tuple[str, int, int]]:
    """Return name, size and modification time of each file of a run."""
    try:
        with os.scandir(folder) as entries:
            stats = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
    except OSError:
        return []
    return sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def _report(root: str, runs: Sequence[Contents]) -> dict[str, Any]:
    values, where, figures = Values(), Environments(), Figures()
    sweeps: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    for sweep in sweeps_of(runs):
        sweeps.append(shown(sweep, _as_typed(sweep.folder), len(records)))
        records += [
            record(run, label, _below(run.folder, sweep.folder), values, where, figures)
            for run, label in zip(sweep.runs, sweep.labels, strict=True)
        ]
    return {
        "root": printable(root),
        "package": lozo_bench.__version__,
        "sweeps": sweeps,
        "runs": records,
        "config": values.kept(),
        "environments": where.kept(),
        "figures": figures.kept(),
    }


def _as_typed(folder: Path) -> str:
    here = Path.cwd()
    return printable(str(folder.relative_to(here) if folder.is_relative_to(here) else folder))


def _below(folder: Path, sweep: Path) -> str:
    return printable(str(folder.relative_to(sweep) if folder.is_relative_to(sweep) else folder))
