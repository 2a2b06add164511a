"""Points of time and memory, with the methods that no other one beats in both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lozo_bench.config.schema import Shown
from lozo_bench.figures.panel import Source, table_of
from lozo_bench.plots.style import COLOURS
from lozo_bench.tables.cells import Sweep
from lozo_bench.tables.show import UNITS, named

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "os^Dv"
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class TimeAndMemory:
    """A point for each row of a table, and the Pareto front of all of them.

    Args:
        title: what the panel shows.
        source: the runs.
    """

    title: str
    source: Source

    def draw(self, axes: Axes, sweep: Sweep | None) -> bool:
        """Draw the points of finished runs; see `Panel`."""
        minutes, memory = (table_of(sweep, show) for show in (Shown.minutes, Shown.memory))
        points: dict[str, Point] = {}
        for place, entry in minutes.entries.items():
            if entry.tests and memory.entries[place].tests:
                points[named(minutes, place[0])] = (
                    UNITS[Shown.minutes].factor * entry.mean,
                    UNITS[Shown.memory].factor * memory.entries[place].mean,
                )
        for number, (label, (x, y)) in enumerate(points.items()):
            colour = COLOURS[number % len(COLOURS)]
            marker = _MARKERS[number // len(COLOURS) % len(_MARKERS)]
            axes.plot(x, y, linestyle="", marker=marker, color=colour, label=label)
        front = pareto_front(list(points.values()))
        if front:
            axes.step(*zip(*front, strict=True), where="post", color="0.6", linestyle="--")
        axes.set_xlabel("minutes of the steps")
        axes.set_ylabel("peak memory in GiB")
        return bool(points)


def pareto_front(points: list[Point]) -> list[Point]:
    """Return the points that no other one beats in both numbers, from left to right."""
    front: list[Point] = []
    for point in sorted(points):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front
