"""Print a table as text for a terminal, as Markdown, as LaTeX or as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lozo_bench.config.schema import By, Pick, Shown, TableConfig
from lozo_bench.tables import sheet
from lozo_bench.tables.published import LOGGED
from lozo_bench.tables.sheet import Sheet
from lozo_bench.tables.table import Entry, Key, Table
from lozo_bench.tables.titles import TITLES

_ABSENT = "-"


@dataclass(frozen=True, slots=True)
class Unit:
    """How a number is printed: times ``factor``, with so many digits after the point."""

    name: str
    factor: float
    digits: int
    about: str


_PERPLEXITY = Unit("perplexity", 1.0, 3, "Perplexity")
UNITS = {
    Shown.test: Unit("percent", 100.0, 1, "In percent"),
    Shown.held_out: Unit("percent_held_out", 100.0, 1, "Mean of the held-out tasks in percent"),
    Shown.memory: Unit("gib", 2.0**-30, 2, "Peak memory in GiB"),
    Shown.minutes: Unit("minutes", 1 / 60, 1, "Minutes of the steps, without evaluations"),
    Shown.seconds_per_step: Unit("seconds", 1e-3, 3, "Seconds of a step (the median of a run)"),
    Shown.passes: Unit("passes", 1.0, 0, "Forward and backward passes of a batch in the run"),
    Shown.queries: Unit("queries", 1.0, 0, "Queries in the run: forward passes of one row"),
}


def unit_of(entry: Entry, table: Table) -> Unit:
    """Return the unit of an entry: perplexity, or that of what the table shows."""
    perplexity = table.config.show is Shown.test and entry.metric == "perplexity"
    return _PERPLEXITY if perplexity else UNITS[table.config.show]


def _units(table: Table) -> list[Unit]:
    """Return the units of the table's numbers, each once."""
    units = [unit_of(entry, table) for entry in table.entries.values() if entry.tests]
    return list(dict.fromkeys(units)) or [UNITS[table.config.show]]


def _sheet(table: Table) -> Sheet:
    header, *rows = _cells(table)
    keys = len(table.config.rows)
    of_others = [row[keys - 1] == table.published.label for row in rows]
    return Sheet(table.config.title, header, rows, keys, notes(table), of_others)


def plain_text(table: Table) -> str:
    """Return the table as text for a terminal, as wide as needed."""
    return sheet.plain_text(_sheet(table))


def markdown(table: Table) -> str:
    """Return the table as a Markdown pipe table."""
    return sheet.markdown(_sheet(table))


def latex(table: Table) -> str:
    """Return the table as a LaTeX tabular for the booktabs package."""
    return sheet.latex(_sheet(table))


def comma_separated(table: Table) -> str:
    """Return a CSV line for each entry of the table, our numbers unrounded, in the same unit."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    config = table.config
    name = "_or_".join(unit.name for unit in _units(table))
    numbers = [f"mean_{name}", f"std_{name}", "n", "of", "chosen"]
    label = "published" if table.published.label != LOGGED else "authors_logs"
    numbers.append(f"{label}_{name if config.show is Shown.test else 'as_printed'}")
    writer.writerow([*config.rows, *config.columns, *numbers])
    for (row, column), entry in table.entries.items():
        factor = unit_of(entry, table).factor
        mean = factor * entry.mean if entry.tests else ""
        std = factor * entry.std if len(entry.tests) > 1 else ""
        counts = [len(entry.tests), entry.seeds]
        texts = [_points(entry), table.published.at(row, column)]
        writer.writerow([*row, *column, mean, std, *counts, *texts])
    return file.getvalue().rstrip("\n")


FORMATS: dict[str, Callable[[Table], str]] = {
    "text": plain_text, "md": markdown, "latex": latex, "csv": comma_separated,
}  # fmt: skip


def notes(table: Table) -> list[str]:
    """Return the notes below a table: units, how points were selected, sources."""
    config, lines = table.config, []
    about = " or ".join(unit.about for unit in _units(table))
    seeds = max((entry.seeds for entry in table.entries.values()), default=0)
    if seeds > 1:
        lines.append(
            f"{about}: mean (standard deviation of the population, ddof 0) over {seeds} "
            f"{config.over}s, or over n of them where n is given."
        )
    else:
        lines.append(f"{about}, for one {config.over}.")
    if table.grids:
        which = "for each seed" if config.select is Pick.per_seed else "for all seeds together"
        by = "the highest dev metric" if config.by is By.dev_metric else "the lowest dev loss"
        lines.append(f"Selected from the grid {which}, by {by} (the first of equals):")
        for (row, column), entry in table.entries.items():
            if points := _points(entry):
                lines.append(f"  {named(table, row)}, {named(table, column)}: {points}")
    elif config.grids:
        lines.append(
            "Values that the command does not set are one point of each row's published grid: that "
            "of the example in the README of the method's code, if the grid has it, and otherwise "
            "the first. --grids covers the grids."
        )
    if any(_selection_may_change(entry) for entry in table.entries.values()):
        lines.append("* part of the grid is missing; its results may change the selection.")
    if table.published.source:
        lines.append(f"{table.published.label}: {table.published.source}")
    return lines


def _cells(table: Table) -> Iterator[list[str]]:
    """Yield the header and then every line, as strings."""
    config = table.config
    yield [
        *config.rows,
        *(named(table, column) for column in table.columns),
    ]
    most = max((entry.seeds for entry in table.entries.values()), default=0)
    for row in table.rows:
        entries = [table.entries.get((row, column)) for column in table.columns]
        yield [
            *(title(config, name) for name in row),
            *(_ABSENT if e is None else printed(e, most, unit_of(e, table)) for e in entries),
        ]
        published = [table.published.at(row, column) for column in table.columns]
        if any(published):
            yield [*[""] * (len(row) - 1), table.published.label, *published]


def printed(entry: Entry, most: int, unit: Unit) -> str:
    """Return an entry as a table prints it; ``most`` is the largest number of seeds in it."""
    if not entry.tests:
        return _ABSENT
    number = f"{unit.factor * entry.mean:.{unit.digits}f}"
    if len(entry.tests) > 1:
        number += f" ({unit.factor * entry.std:.{unit.digits}f})"
    if len(entry.tests) < most:
        number += f" n={len(entry.tests)}"
    return number + ("*" if _selection_may_change(entry) else "")


def _selection_may_change(entry: Entry) -> bool:
    """Return whether a run is missing that could have been selected."""
    return bool(entry.missing) and any(entry.points.values())


def _points(entry: Entry) -> str:
    """Return the selected points: ``lr=1e-6``, or ``s13: lr=1e-6; s21: lr=1e-7`` if they differ.

    The string is empty if there was no grid to select from.
    """
    if not any(entry.points.values()):
        return ""
    if len(set(entry.points.values())) == 1:
        return next(iter(entry.points.values()))
    return "; ".join(f"{seed}: {point}" for seed, point in entry.points.items())


def title(config: TableConfig, name: str) -> str:
    """Return the printed name of a choice, such as ``SST-2`` for ``sst2``."""
    return config.names.get(name, TITLES.get(name, name))


def named(table: Table, key: Key) -> str:
    """Return the printed name of a row or a column."""
    return ", ".join(title(table.config, name) for name in key)
