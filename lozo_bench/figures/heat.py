"""Heat maps of how often each low-rank module was on, in runs and in the logs of authors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lozo_bench.display.allocation_figure import (
    SHARES,
    Heat,
    draw_heat,
    heat_of,
    logged_heat,
    shades,
)
from lozo_bench.display.figures import rows_of
from lozo_bench.figures.panel import Source, finished
from lozo_bench.runs.outcome import EVENTS
from lozo_bench.tables.cells import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True)
class Frequencies:
    """How often each module was on in the first finished run, by layer and projection."""

    title: str
    source: Source

    def draw(self, axes: Axes, sweep: Sweep | None) -> bool:
        """Draw the run's heat map; see `Panel`."""
        for run in finished(sweep):
            if (heat := heat_of(rows_of(run.folder / EVENTS))) is not None:
                _draw(axes, heat, f"{self.title}\n{heat.title}")
                return True
        return False


@dataclass(frozen=True, slots=True)
class LoggedFrequencies:
    """The same as its authors logged it.

    Args:
        title: what the panel shows.
        name: a file of ``display/allocation_logs``.
        source: there are no runs.
    """

    title: str
    name: str
    source: None = None

    def draw(self, axes: Axes, sweep: Sweep | None) -> bool:
        """Draw the authors' heat map; see `Panel`."""
        _draw(axes, logged_heat(self.name), self.title)
        return True


def _draw(axes: Axes, heat: Heat, title: str) -> None:
    draw_heat(axes, heat)
    axes.set_title("")
    axes.set_title(title, fontsize="medium", loc="left")
    axes.figure.colorbar(shades(), ax=axes, label=SHARES)
    axes.set_anchor("W")  # so that the title over few layers has room; the colour bar moves it
