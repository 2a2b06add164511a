"""A table from the results of a sweep's runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev

from lozo_bench.config import TableConfig
from lozo_bench.errors import UserError
from lozo_bench.runs.outcome import RESULT
from lozo_bench.tables.cells import Run, Sweep, value
from lozo_bench.tables.choose import Dev, chosen
from lozo_bench.tables.published import Published, read_published

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What a finished run came to: ``dev`` is None if it did not look at its dev rows."""

    dev: Dev | None
    test: float


@dataclass(frozen=True, slots=True)
class Entry:
    """One place of a table; metrics are fractions.

    Args:
        tests: the test metric of the run that was chosen for each seed.
        points: the point of the grid that was chosen for each seed, in words.
        seeds: how many were planned.
        missing: runs without a result, those of the grid's other points among them.
    """

    tests: Mapping[str, float]
    points: Mapping[str, str]
    seeds: int
    missing: Sequence[Run]

    @property
    def mean(self) -> float:
        """Over the seeds that are there."""
        return fmean(self.tests.values())

    @property
    def std(self) -> float:
        """Of the population, ddof 0, as it is published."""
        return pstdev(self.tests.values())


@dataclass(frozen=True, slots=True)
class Table:
    """Entries by row and column, in the order in which the sweep has them.

    ``commands`` make what is missing, all of it.
    """

    config: TableConfig
    rows: Sequence[Key]
    columns: Sequence[Key]
    entries: Mapping[tuple[Key, Key], Entry]
    published: Published
    commands: Sequence[str]

    @property
    def missing(self) -> list[Run]:
        """Runs without a result, each once."""
        runs = (run for entry in self.entries.values() for run in entry.missing)
        return list({run.folder: run for run in runs}.values())

    @property
    def grids(self) -> bool:
        """Whether anything was chosen by dev metrics."""
        return any(any(entry.points.values()) for entry in self.entries.values())


def made(sweeps: Sequence[Sweep]) -> Table:
    """The table of one or more sweeps, which have different rows or columns.

    Raises:
        UserError: a row, a column or the seed is not among what is swept.
    """
    config = sweeps[0].table
    if not config.title:
        raise UserError(
            "the experiment has no table; lozo-tables, without a name, lists those that do"
        )
    entries: dict[tuple[Key, Key], Entry] = {}
    commands = []
    for sweep in sweeps:
        places: dict[tuple[Key, Key], list[Run]] = {}
        for run in sweep.runs:
            row = tuple(value(run, key) for key in config.rows)
            column = tuple(value(run, key) for key in config.columns)
            places.setdefault((row, column), []).append(run)
        of_here = {place: _entry(config, runs) for place, runs in places.items()}
        if any(entry.missing for entry in of_here.values()):
            commands.append(sweep.command)
        entries.update(of_here)
    rows = list(dict.fromkeys(row for row, _ in entries))
    columns = list(dict.fromkeys(column for _, column in entries))
    published = read_published(config.published, len(config.rows))
    return Table(config, rows, columns, entries, published, commands)


def _entry(config: TableConfig, runs: Sequence[Run]) -> Entry:
    grid = _varied(config, runs)
    found: dict[str, dict[str, Found]] = {}
    missing = []
    for run in runs:
        result = read(run.folder)
        if result is None:
            missing.append(run)
            continue
        point = " ".join(f"{key}={run.choices[key]}" for key in grid)
        found.setdefault(point, {})[_seed(config, run)] = result
    seeds = list(dict.fromkeys(_seed(config, run) for run in runs))
    points = _points(config, found, seeds) if grid else dict.fromkeys(found.get("", {}), "")
    tests = {seed: found[point][seed].test for seed, point in points.items()}
    return Entry(tests, points, len(seeds), missing)


def _points(
    config: TableConfig, found: Mapping[str, Mapping[str, Found]], seeds: Sequence[str]
) -> dict[str, str]:
    seen: dict[str, dict[str, Dev]] = {}
    for point, runs in found.items():
        for seed, run in runs.items():
            if run.dev is None:
                raise UserError(f"table: {point} has no dev metrics, so there is no choosing by it")
            seen.setdefault(point, {})[seed] = run.dev
    return chosen(seen, seeds, config.select, config.by)


def _varied(config: TableConfig, runs: Sequence[Run]) -> list[str]:
    """The keys of the grid: what differs among an entry's runs, but for the seed."""
    return [
        key
        for key in runs[0].choices
        if key != config.over and len({run.choices[key] for run in runs}) > 1
    ]


def _seed(config: TableConfig, run: Run) -> str:
    return run.choices.get(config.over, "")


def read(folder: Path) -> Found | None:
    """The result in ``folder``; None if there is none.

    Raises:
        UserError: it cannot be read.
    """
    path = folder / RESULT
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
        dev = metrics.get("dev")
        return Found(None if dev is None else _seen(dev), _first(metrics["test"]))
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
        raise UserError(f"{path}: cannot be read; remove it and run again") from error


def _seen(dev: Mapping[str, float]) -> Dev:
    judged = next(iter(dev)) != "loss"
    return Dev(_first(dev) if judged else None, float(dev["loss"]))


def _first(metrics: Mapping[str, float]) -> float:
    """The task's metric is the first."""
    return float(next(iter(metrics.values())))
