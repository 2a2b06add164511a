"""The table of a sweep: mean and standard deviation over the seeds, by what sets its runs apart."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from statistics import fmean, pstdev

from lozo_bench.errors import UserError, counted
from lozo_bench.runs.apart import SEEDS, as_number, differing, short_names, spelled
from lozo_bench.runs.choices import choices_of, digest_of
from lozo_bench.runs.outcome import RESULT
from lozo_bench.runs.result_file import load_metrics
from lozo_bench.tables import sheet
from lozo_bench.tables.sheet import Sheet

_LOWER_IS_BETTER = ("loss", "perplexity")
_ABSENT = "-"
Run = tuple[Mapping[str, str], Path]  # the choices of a run and its folder


@dataclass(frozen=True, slots=True)
class Scores:
    """The metrics of a finished run; ``dev`` is None if it did not evaluate its dev rows."""

    folder: Path
    metric: str
    test: float
    dev_metric: str
    dev: float | None
    dev_loss: float = inf


@dataclass(frozen=True, slots=True)
class Row:
    """The runs that differ in their seed only.

    Args:
        values: the value of each key in which the rows differ; empty where a run has none.
        runs: the number of runs, finished or not.
        scores: those of the finished ones.
        best: whether its mean on the dev rows is the best one, of the rows of its task.
    """

    values: Mapping[str, str]
    runs: int
    scores: Sequence[Scores]
    best: bool = False

    @property
    def devs(self) -> list[float]:
        """The dev metric of each run that has one."""
        return [run.dev for run in self.scores if run.dev is not None]


@dataclass(frozen=True, slots=True)
class Summary:
    """The table of a sweep.

    Args:
        title: stands above the table.
        keys: in which its rows differ.
        rows: the rows.
        seeds: whether any runs differ in their seed.
        common: what was set for all runs alike, such as ``optimizer=lozo steps=300``.
        copies: how many folders are left out, because another one has the same run.
    """

    title: str
    keys: Sequence[str]
    rows: Sequence[Row]
    seeds: bool
    common: str = ""
    copies: int = 0


def summary_of_folders(title: str, folders: Sequence[Path]) -> Summary:
    """Return the table of the runs in these folders, from the commands that made them.

    The folders do not say in which order the runs were given: rows are sorted by their values. Of
    several copies of a run, one counts.
    """
    runs = list(zip(choices_of(folders), folders, strict=True))
    once = _without_copies(runs)
    summary = summarize(title, once)
    copies = len(runs) - len(once)
    return replace(summary, rows=sorted(summary.rows, key=_order), copies=copies)


def _without_copies(runs: Sequence[Run]) -> list[Run]:
    """Return the runs, of copies a finished one, if any is."""
    first: dict[object, Run] = {}
    for choices, folder in sorted(runs, key=lambda run: not (run[1] / RESULT).exists()):
        digest = digest_of(folder) or str(folder)
        first.setdefault((digest, *sorted(choices.items())), (choices, folder))
    kept = {folder for _, folder in first.values()}
    return [run for run in runs if run[1] in kept]


def _order(row: Row) -> list[tuple[bool, float, str]]:
    values = [(as_number(value), value) for value in row.values.values()]
    return [(isinstance(x, str), 0.0 if isinstance(x, str) else x, value) for x, value in values]


def summarize(title: str, runs: Sequence[Run]) -> Summary:
    """Return the table of a sweep.

    Args:
        title: stands above the table.
        runs: the choices of each run and its folder, whether it is finished or not.
    """
    keys = differing([choices for choices, _ in runs], SEEDS)
    groups: dict[tuple[float | str, ...], tuple[tuple[str, ...], list[Path]]] = {}
    for choices, folder in runs:
        values = tuple(choices.get(key, "") for key in keys)
        groups.setdefault(tuple(map(as_number, values)), (values, []))[1].append(folder)
    rows = [
        Row(
            dict(zip(keys, values, strict=True)),
            len(folders),
            list(filter(None, map(_read, folders))),
        )
        for values, folders in groups.values()
    ]
    seeds = bool(differing([choices for choices, _ in runs], keys))
    return Summary(title, keys, _marked(rows), seeds, _common([choices for choices, _ in runs]))


def _common(runs: Sequence[Mapping[str, str]]) -> str:
    """Return the choices that all runs have in common, except their seed."""
    first = runs[0] if runs else {}
    return " ".join(
        f"{key}={spelled(value)}"
        for key, value in first.items()
        if key not in SEEDS and all(choices.get(key) == value for choices in runs)
    )


def _read(folder: Path) -> Scores | None:
    """Return the metrics of a run; None if it is not finished or its result is damaged."""
    try:
        metrics = load_metrics(folder)
    except (UserError, OSError):
        return None
    if metrics is None:
        return None
    name, test = next(iter(metrics["test"].items()))
    dev_name, dev = next(iter(metrics.get("dev", {}).items()), ("", None))
    loss = float(metrics.get("dev", {}).get("loss", inf))
    return Scores(folder, name, float(test), dev_name, None if dev is None else float(dev), loss)


def _marked(rows: Sequence[Row]) -> list[Row]:
    """Mark the best row of each task, of those with the most finished runs."""
    best = []
    for task in dict.fromkeys(map(_task, rows)):
        of_task = [row for row in rows if _task(row) == task]
        most = max(len(row.devs) for row in of_task)
        if most and len(of_task) > 1:
            best.append(max((row for row in of_task if len(row.devs) == most), key=_goodness))
    return [replace(row, best=any(row is one for one in best)) for row in rows]


def _task(row: Row) -> tuple[str, ...]:
    return tuple(x for key, x in row.values.items() if key.partition(".")[0] == "task")


def _goodness(row: Row) -> tuple[float, float]:
    """Return the means by which rows are compared: of equal metrics, the lower loss is better."""
    if not row.devs:
        return -inf, -inf
    metrics, losses = zip(*map(_goodness_of_run, row.scores), strict=True)
    return fmean(metrics), fmean(losses)


def _goodness_of_run(run: Scores) -> tuple[float, float]:
    if run.dev is None:
        return -inf, -inf
    return -run.dev if run.dev_metric in _LOWER_IS_BETTER else run.dev, -run.dev_loss


def as_sheet(summary: Summary) -> Sheet:
    """Return the table as rows of text."""
    metrics = {run.metric for row in summary.rows for run in row.scores}
    (metric,) = metrics if len(metrics) == 1 else {""}
    what = f" {metric}" if metric not in ("", "accuracy") else ""
    header = [*short_names(summary.keys).values(), "runs", f"dev{what}", f"test{what}"]
    rows = [
        [
            *(spelled(row.values[key]) or _ABSENT for key in summary.keys),
            str(row.runs) if len(row.scores) == row.runs else f"{len(row.scores)} of {row.runs}",
            _number(row.devs) + (" *" if row.best else "  " if _has_best(summary) else ""),
            _number([run.test for run in row.scores]),
        ]
        for row in summary.rows
    ]
    return Sheet(summary.title, header, rows, len(summary.keys), notes(summary))


def _has_best(summary: Summary) -> bool:
    return any(row.best for row in summary.rows)


def notes(summary: Summary) -> list[str]:
    """Return the lines below the table: what the numbers are, and which run is the best one."""
    lines = [f"all runs: {summary.common}"] if summary.common else []
    if summary.seeds:
        lines.append("mean (standard deviation of the population, ddof 0) over the seeds")
    if summary.copies:
        left_out = counted(summary.copies, "folder")
        lines.append(f"left out: {left_out} with a copy of one of these runs")
    best = [row for row in summary.rows if row.best]
    several = len({_task(row) for row in summary.rows}) > 1
    if best:
        equals = " (of equals, the lower dev loss)"
        lines.append(f"* the best on the dev rows{', for each task' if several else ''}{equals}")
    chosen = best or (list(summary.rows) if len(summary.rows) == 1 else [])
    if len(chosen) == 1 and (row := chosen[0]).devs and not several:
        run = max(row.scores, key=_goodness_of_run)
        lines.append(f"best run by dev: {_shown(run.folder)}")
    return lines


def _shown(folder: Path) -> str:
    """Return a folder as one would type it here."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def _number(values: Sequence[float]) -> str:
    if not values:
        return _ABSENT
    mean = f"{fmean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ({pstdev(values):.4f})"


def comma_separated(summary: Summary) -> str:
    """Return a CSV line for each row of the table, the numbers unrounded."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    numbers = ["runs", "finished", "metric", "mean_dev", "std_dev", "mean_test", "std_test", "best"]
    writer.writerow([*summary.keys, *numbers])
    for row in summary.rows:
        metric = row.scores[0].metric if row.scores else ""
        statistics = [
            function(values) if len(values) >= least else ""
            for values in (row.devs, [run.test for run in row.scores])
            for function, least in ((fmean, 1), (pstdev, 2))  # one run has no deviation
        ]
        counts = [row.runs, len(row.scores)]
        writer.writerow([*row.values.values(), *counts, metric, *statistics, int(row.best)])
    return file.getvalue().rstrip("\n")


FORMATS: dict[str, Callable[[Summary], str]] = {
    "text": lambda summary: sheet.plain_text(as_sheet(summary)),
    "md": lambda summary: sheet.markdown(as_sheet(summary)),
    "latex": lambda summary: sheet.latex(as_sheet(summary)),
    "csv": comma_separated,
}


def unfinished(summary: Summary) -> str:
    """Return how many runs have no result: ``2 of 9 runs have no result``; empty if all have."""
    total = sum(row.runs for row in summary.rows)
    missing = total - sum(len(row.scores) for row in summary.rows)
    return (
        f"{missing} of {counted(total, 'run')} {'has' if missing == 1 else 'have'} no result"
        if missing
        else ""
    )
