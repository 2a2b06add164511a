"""Lines of a table against one of its keys, such as the rank."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lozo_bench.config.schema import Shown
from lozo_bench.figures.panel import Source, table_of
from lozo_bench.plots.style import BAND, looks
from lozo_bench.tables.cells import Sweep
from lozo_bench.tables.show import UNITS, title
from lozo_bench.tables.table import Entry

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True)
class Lines:
    """The test metric against a key, one line for each row that differs in the others.

    Args:
        title: what the panel shows.
        source: the runs.
        x: the key of the table's rows that is the horizontal axis.
        below: what this axis is.
    """

    title: str
    source: Source
    x: str
    below: str

    def draw(self, axes: Axes, sweep: Sweep | None) -> bool:
        """Draw the lines of finished runs; see `Panel`."""
        table = table_of(sweep, Shown.test)
        at = table.config.rows.index(self.x)
        names = list(dict.fromkeys(row[at] for row in table.rows))
        positions = dict(zip(names, _positions(names), strict=True))
        lines: dict[str, list[tuple[float, Entry]]] = defaultdict(list)
        for (row, column), entry in table.entries.items():
            if entry.tests:
                others = [*row[:at], *row[at + 1 :]] or [*column]
                label = ", ".join(title(table.config, name) for name in others)
                lines[label].append((positions[row[at]], entry))
        factor = UNITS[Shown.test].factor
        for label, (colour, style) in looks(list(lines)).items():
            points = sorted(lines[label], key=lambda point: point[0])
            x = np.array([place for place, _ in points])
            mean = factor * np.array([entry.mean for _, entry in points])
            std = factor * np.array([entry.std for _, entry in points])
            axes.plot(x, mean, color=colour, linestyle=style, marker="o", markersize=4, label=label)
            axes.fill_between(x, mean - std, mean + std, color=colour, alpha=BAND, linewidth=0)
        if _are_numbers(names):
            axes.set_xscale("log")
            axes.minorticks_off()
        axes.set_xticks(list(positions.values()), [_tick(title(table.config, n)) for n in names])
        axes.set_xlabel(self.below)
        axes.set_ylabel(UNITS[Shown.test].about)
        return bool(lines)


def _positions(names: list[str]) -> list[float]:
    """Return where the values of the key are: at their numbers, or one after the other."""
    if _are_numbers(names):
        return [float(name.lstrip("r")) for name in names]
    return [float(number) for number in range(len(names))]


def _are_numbers(names: list[str]) -> bool:
    return all(re.fullmatch(r"r?[1-9]\d*(\.\d+)?", name) for name in names)


def _tick(name: str) -> str:
    return name.removeprefix("r = ")
