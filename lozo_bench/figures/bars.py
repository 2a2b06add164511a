"""Bars: one for each row of a table, in a group for each column; published numbers as diamonds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lozo_bench.config.schema import Shown
from lozo_bench.figures.panel import Source, table_of
from lozo_bench.plots.style import COLOURS, looks
from lozo_bench.tables.cells import Sweep
from lozo_bench.tables.show import UNITS, named
from lozo_bench.tables.table import Entry, Key, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH = 0.84  # of a group; the distance of two groups is 1
_WIDEST = 0.25  # bar
_HATCHES = ("", "///", "...")


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars of a table, with a standard deviation where there are several seeds.

    Args:
        title: what the panel shows.
        source: the runs.
        show: what is shown of each run.
        groups_are_rows: whether a group of bars is a row of the table, and not a column.
        log: whether the vertical axis is logarithmic.
    """

    title: str
    source: Source
    show: Shown = Shown.test
    groups_are_rows: bool = False
    log: bool = False

    def draw(self, axes: Axes, sweep: Sweep | None) -> bool:
        """Draw the bars of finished runs; see `Panel`."""
        table = table_of(sweep, self.show)
        groups, bars = table.columns, table.rows
        if self.groups_are_rows:
            groups, bars = bars, groups
        width = min(_WIDEST, _WIDTH / len(bars))
        labels = [named(table, bar) for bar in bars]
        colours = looks(list(dict.fromkeys(labels)))
        for number, (bar, label) in enumerate(zip(bars, labels, strict=True)):
            colour, _ = colours[label]
            x = np.arange(len(groups)) + (number - (len(bars) - 1) / 2) * width
            places = [self._place(group, bar) for group in groups]
            self._bars(axes, table, places, x, width, label, colour, number)
            self._published(axes, table, places, x)
        axes.set_xticks(range(len(groups)), [named(table, group) for group in groups])
        axes.set_ylabel(UNITS[self.show].about.partition(":")[0])
        axes.set_xlim(-0.6, len(groups) - 0.4)
        drawn = [entry.mean for entry in table.entries.values() if entry.tests]
        if self.log and drawn:
            _in_logarithms(axes, UNITS[self.show].factor * min(drawn))
        return bool(drawn)

    def _place(self, group: Key, bar: Key) -> tuple[Key, Key]:
        return (group, bar) if self.groups_are_rows else (bar, group)

    def _bars(
        self,
        axes: Axes,
        table: Table,
        places: list[tuple[Key, Key]],
        x: np.ndarray,
        width: float,
        label: str,
        colour: str,
        number: int,
    ) -> None:
        entries = [table.entries.get(place) for place in places]
        found: list[tuple[float, Entry]] = [
            (float(at), e) for at, e in zip(x, entries, strict=True) if e is not None and e.tests
        ]
        if not found:
            return
        factor = UNITS[self.show].factor
        axes.bar(
            [at for at, _ in found],
            [factor * entry.mean for _, entry in found],
            width,
            yerr=[factor * entry.std if len(entry.tests) > 1 else 0.0 for _, entry in found],
            color=colour,
            hatch=_HATCHES[number // len(COLOURS) % len(_HATCHES)],
            ecolor="0.3",
            label=label,
        )

    def _published(
        self, axes: Axes, table: Table, places: list[tuple[Key, Key]], x: np.ndarray
    ) -> None:
        numbers = [number_in(table.published.at(*place)) for place in places]
        points = [(at, y) for at, y in zip(x, numbers, strict=True) if y is not None]
        if not points:
            return
        axes.plot(
            *zip(*points, strict=True),
            linestyle="",
            marker="D",
            markersize=4,
            markerfacecolor="white",
            markeredgecolor="black",
            label=table.published.label,
        )


def _in_logarithms(axes: Axes, lowest: float) -> None:
    """Make the vertical axis logarithmic, with plain numbers and room for the lowest bar."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.set_ylim(bottom=min(axes.get_ylim()[0], lowest / 2))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def number_in(text: str) -> float | None:
    """Return the number that a published cell begins with, as in ``90.5 (1.2)``."""
    found = re.match(r"\d+(\.\d+)?", text)
    return float(found[0]) if found else None
