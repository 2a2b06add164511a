"""Singular values of gradients by step or by layer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from lozo_bench.display.figures import rows_of
from lozo_bench.figures.panel import Source, finished
from lozo_bench.runs.outcome import EVENTS
from lozo_bench.runs.row import Row
from lozo_bench.tables.cells import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_EVENT = "singular_values"
_MOST = 6  # lines
_BRIGHTEST = 0.9  # from here on, viridis is too bright for a line on white
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SingularValues:
    """The singular values of a weight's gradient, the largest one first.

    Args:
        title: what the panel shows.
        source: the run; without several, the first that is finished.
        along: lines of one layer, that in the middle, at several steps; or of several layers at
            the last step that was logged.
    """

    title: str
    source: Source
    along: Literal["step", "layer"]

    def draw(self, axes: Axes, sweep: Sweep | None) -> bool:
        """Draw the run's singular values; see `Panel`."""
        from matplotlib import colormaps
        from matplotlib.ticker import MaxNLocator

        for run in finished(sweep):
            found = by_step_and_layer(rows_of(run.folder / EVENTS))
            if not found:
                continue
            lines = self._lines(found)
            shades = colormaps["viridis"](np.linspace(0, _BRIGHTEST, len(lines)))
            for (label, values), shade in zip(lines.items(), shades, strict=True):
                x = np.arange(1, len(values) + 1)
                axes.plot(x, values, color=shade, linewidth=1.2, label=label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_yscale("log")
            axes.set_xlabel("number of the singular value")
            axes.set_ylabel("singular value of the gradient")
            return True
        return False

    def _lines(self, found: Mapping[tuple[int, int], Values]) -> dict[str, Values]:
        steps = sorted({step for step, _ in found})
        layers = sorted({layer for _, layer in found})
        if self.along == "step":
            middle = layers[len(layers) // 2]
            return {f"step {at}": found[at, middle] for at in _some(steps)}
        return {f"layer {at}": found[steps[-1], at] for at in _some(layers)}


def by_step_and_layer(events: Sequence[Row]) -> dict[tuple[int, int], Values]:
    """Return the logged singular values by step and layer, of the first weight of each layer."""
    found: dict[tuple[int, int], Values] = {}
    for row in events:
        if row.get("event") == _EVENT and (layer := re.search(r"\.(\d+)\.", row["weight"])):
            values = np.array([float(value) for value in row["values"].split()])
            found.setdefault((row["step"], int(layer[1])), values[values > 0])
    return found


def _some(numbers: Sequence[int]) -> list[int]:
    """Return at most a few of the numbers, evenly spread, with the first and the last."""
    places = np.linspace(0, len(numbers) - 1, min(_MOST, len(numbers))).round().astype(int)
    return [numbers[place] for place in places]
