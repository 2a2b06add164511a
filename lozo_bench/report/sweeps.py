"""Which runs are a sweep, and what a report shows of it: counts, tables and curves."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lozo_bench.report.contents import Contents, name_of
from lozo_bench.report.curves import averaged
from lozo_bench.report.paper import paper_tables
from lozo_bench.runs.labels import Label, is_folder_of_sweep, labels
from lozo_bench.runs.planned import waiting_in
from lozo_bench.runs.status import CellState
from lozo_bench.tables.summary import as_sheet, summary_of_folders

_RECORD = "multirun.yaml"  # Hydra writes it into the folder of a sweep
_LEVELS = 3  # of folders that a sweep makes for a run: task, model and the run itself


@dataclass(frozen=True, slots=True)
class Sweep:
    """The runs of a sweep and what each is called among them."""

    folder: Path
    runs: Sequence[Contents]
    labels: Sequence[Label]


def sweeps_of(runs: Sequence[Contents]) -> list[Sweep]:
    """Return the sweeps, by folder."""
    by_folder: dict[Path, list[Contents]] = defaultdict(list)
    for run in runs:
        by_folder[_folder_of_sweep(run.folder)].append(run)
    return [
        Sweep(folder, members, labels([(run.folder, run.result.config) for run in members]))
        for folder, members in sorted(by_folder.items())
    ]


def _folder_of_sweep(run: Path) -> Path:
    """Return the folder of the sweep that made a run; a run of its own is with its neighbours."""
    for folder in run.parents[: _LEVELS + 1]:
        if (folder / _RECORD).is_file():
            return folder
    return run.parents[_LEVELS - 1] if is_folder_of_sweep(run) else run.parent


def shown(sweep: Sweep, name: str, first: int) -> dict[str, Any]:
    """Return what the page shows of a sweep.

    Args:
        sweep: its runs.
        name: its folder, as one would type it.
        first: the number of its first run in the report; the others follow it.
    """
    states = Counter(run.cell.state for run in sweep.runs)
    return {
        "name": name,
        "folder": str(sweep.folder),
        "counts": {state.value: states[state] for state in CellState if states[state]},
        "waiting": waiting_in(sweep.folder),
        "runs": list(range(first, first + len(sweep.runs))),
        "papers": paper_tables(sweep.runs),
        "tables": [_summary(sweep)],
        "curves": _groups(sweep, first),
    }


def _summary(sweep: Sweep) -> dict[str, Any]:
    """Return the table that the sweep prints at its end."""
    sheet = as_sheet(summary_of_folders("", [run.folder for run in sweep.runs]))
    header = [
        {"name": name, "number": number >= sheet.keys} for number, name in enumerate(sheet.header)
    ]
    rows = [[{"text": text.strip()} for text in row] for row in sheet.rows]
    return {
        "caption": "Mean over the seeds, by what sets the runs apart",
        "header": header,
        "rows": rows,
        "notes": list(sheet.notes),
    }


def _groups(sweep: Sweep, first: int) -> list[dict[str, Any]]:
    """Return the curves of each task and model."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, run in enumerate(sweep.runs):
        if run.curves.shown:
            where = name_of(run.result.config, "task"), name_of(run.result.config, "model")
            groups[where].append(number)
    return [
        _group(", ".join(filter(None, where)) or "all runs", sweep.runs, members, first)
        for where, members in sorted(groups.items())
    ]


def _group(name: str, runs: Sequence[Contents], members: Sequence[int], first: int) -> Any:
    """Return the curves of some runs of a sweep, by what these runs are called among them."""
    names = labels([(runs[number].folder, runs[number].result.config) for number in members])
    of_label: dict[str, list[int]] = defaultdict(list)
    for label, number in zip(names, members, strict=True):
        of_label[str(label)].append(number)
    metrics = (runs[number].curves.metric for number in members)
    lines = [
        {
            "label": label,
            "runs": [first + number for number in same],
            **averaged([runs[number].curves for number in same]),
        }
        for label, same in sorted(of_label.items())
    ]
    return {"name": name, "metric": next(filter(None, metrics), ""), "lines": lines}
