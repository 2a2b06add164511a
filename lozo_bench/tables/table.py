"""Build a table from the results of a sweep's runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev

from lozo_bench.config.schema import Shown, TableConfig
from lozo_bench.errors import UserError
from lozo_bench.runs.outcome import RESULT
from lozo_bench.runs.result_file import load_metrics, load_result
from lozo_bench.tables.cells import Run, Sweep, choice_of
from lozo_bench.tables.choose import DevMetrics, select_points
from lozo_bench.tables.published import Published, read_published

Key = tuple[str, ...]
# The entries of result.json whose sum a table shows.
_COSTS = {
    Shown.memory: ("peak_memory_bytes",),
    Shown.minutes: ("train_s",),
    Shown.seconds_per_step: ("step_ms_median",),
    Shown.passes: ("forwards", "backwards"),
    Shown.queries: ("queries",),
}
HELD_OUT = "held_out"  # the entry of a result with the mean over the tasks that are not trained


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """The numbers of a finished run; ``dev`` is None if it did not evaluate its dev rows.

    ``test`` is its test metric, or what else the table shows.
    """

    dev: DevMetrics | None
    test: float
    metric: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a table.

    Args:
        tests: the test metric of the run that was selected for each seed, as a fraction; or what
            else the table shows, in the unit of ``result.json``.
        points: the point of the grid that was selected for each seed, as text.
        seeds: the number of planned seeds.
        missing: the runs without a result that can be read, including those of points that were
            not selected.
        metric: the name of the test metric; empty if the table shows something else.
    """

    tests: Mapping[str, float]
    points: Mapping[str, str]
    seeds: int
    missing: Sequence[Run]
    metric: str = ""

    @property
    def mean(self) -> float:
        """The mean over the seeds that have a result."""
        return fmean(self.tests.values())

    @property
    def std(self) -> float:
        """The standard deviation of the population (ddof 0), as the papers print it."""
        return pstdev(self.tests.values())


@dataclass(frozen=True, slots=True)
class Table:
    """Entries by row and column, in the order of the sweep.

    ``commands`` are the commands that run everything that is missing.
    """

    config: TableConfig
    rows: Sequence[Key]
    columns: Sequence[Key]
    entries: Mapping[tuple[Key, Key], Entry]
    published: Published
    commands: Sequence[str]

    @property
    def missing(self) -> list[Run]:
        """The runs without a result, each listed once."""
        runs = (run for entry in self.entries.values() for run in entry.missing)
        return list({run.folder: run for run in runs}.values())

    @property
    def grids(self) -> bool:
        """Whether any entry was selected from a grid."""
        return any(any(entry.points.values()) for entry in self.entries.values())


def build_table(sweeps: Sequence[Sweep]) -> Table:
    """Return the table of one or more sweeps, which fill different rows or columns.

    Raises:
        UserError: the experiment has no table, or the sweep does not set the key of a row or of a
            column.
    """
    config = sweeps[0].table
    if not config.title:
        raise UserError(
            "the experiment has no table; lozo-tables without a name lists those that have one"
        )
    entries: dict[tuple[Key, Key], Entry] = {}
    commands = []
    for sweep in sweeps:
        cells: dict[tuple[Key, Key], list[Run]] = {}
        for run in sweep.runs:
            row = tuple(choice_of(run.choices, key) for key in config.rows)
            column = tuple(choice_of(run.choices, key) for key in config.columns)
            cells.setdefault((row, column), []).append(run)
        filled = {cell: _entry(config, runs) for cell, runs in cells.items()}
        if any(entry.missing for entry in filled.values()):
            commands.append(sweep.command)
        entries.update(filled)
    rows = list(dict.fromkeys(row for row, _ in entries))
    columns = list(dict.fromkeys(column for _, column in entries))
    published = read_published(config.published, len(config.rows), config.show)
    return Table(config, rows, columns, entries, published, commands)


def _entry(config: TableConfig, runs: Sequence[Run]) -> Entry:
    grid = _varied(config, runs)
    found: dict[str, dict[str, RunMetrics]] = {}
    missing = []
    for run in runs:
        result = _read_or_missing(run.folder, config.show)
        if result is None:
            missing.append(run)
            continue
        point = " ".join(f"{key}={run.choices[key]}" for key in grid)
        found.setdefault(point, {})[_seed(config, run)] = result
    seeds = list(dict.fromkeys(_seed(config, run) for run in runs))
    points = _points(config, found, seeds) if grid else dict.fromkeys(found.get("", {}), "")
    tests = {seed: found[point][seed].test for seed, point in points.items()}
    metric = next((found[point][seed].metric for seed, point in points.items()), "")
    return Entry(tests, points, len(seeds), missing, metric)


def _points(
    config: TableConfig, found: Mapping[str, Mapping[str, RunMetrics]], seeds: Sequence[str]
) -> dict[str, str]:
    seen: dict[str, dict[str, DevMetrics]] = {}
    for point, runs in found.items():
        for seed, run in runs.items():
            if run.dev is None:
                raise UserError(f"table: {point} has no dev metrics, so it cannot be compared")
            seen.setdefault(point, {})[seed] = run.dev
    return select_points(seen, seeds, config.select, config.by)


def _varied(config: TableConfig, runs: Sequence[Run]) -> list[str]:
    """Return the keys of the grid: those, except the seed, that differ among an entry's runs."""
    return [
        key
        for key in runs[0].choices
        if key != config.over and len({run.choices[key] for run in runs}) > 1
    ]


def _seed(config: TableConfig, run: Run) -> str:
    return run.choices.get(config.over, "")


def read(folder: Path, show: Shown = Shown.test) -> RunMetrics | None:
    """Return the result in ``folder``, or None if there is none.

    Raises:
        UserError: the result file cannot be read, or lacks what the table shows.
    """
    metrics = load_metrics(folder)
    if metrics is None:
        return None
    dev = metrics.get("dev")
    if dev is not None and "loss" not in dev:
        raise UserError(f"{folder / RESULT}: has no dev loss; move it away and run again")
    dev_metrics = None if dev is None else _dev_of(dev)
    test = metrics["test"]
    if show is Shown.held_out:
        if HELD_OUT not in test:
            raise UserError(
                f"{folder / RESULT}: has no {HELD_OUT}; table.show=held_out is for runs of several "
                "tasks, some of which are in task.held_out"
            )
        return RunMetrics(dev_metrics, test[HELD_OUT], HELD_OUT)
    if show is not Shown.test:
        return RunMetrics(dev_metrics, _cost(folder, show))
    return RunMetrics(dev_metrics, _first(test), next(iter(test)))


def _cost(folder: Path, show: Shown) -> float:
    result = load_result(folder) or {}
    keys = _COSTS[show]
    costs = [cost for key in keys if isinstance(cost := result.get(key), int | float)]
    if len(costs) < len(keys):
        raise UserError(
            f"{folder / RESULT}: has no {' or no '.join(keys)}; move it away and run again"
        )
    return float(sum(costs))


def _read_or_missing(folder: Path, show: Shown) -> RunMetrics | None:
    """Return the result in ``folder``; None if there is none, or if it is damaged."""
    try:
        return read(folder, show)
    except UserError:
        return None  # the report of missing runs gives the reason


def _dev_of(dev: Mapping[str, float]) -> DevMetrics:
    has_metric = next(iter(dev)) not in ("loss", "perplexity")  # of these, lower is better
    return DevMetrics(_first(dev) if has_metric else None, float(dev["loss"]))


def _first(metrics: Mapping[str, float]) -> float:
    """Return the first value, which is that of the task's metric."""
    return float(next(iter(metrics.values())))
