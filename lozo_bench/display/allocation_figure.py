"""Draws ``allocation.svg``: how often each low-rank module of a run was on.

A row of the heat map is a projection or a shortcut, a column is a layer, and the shade is the share
of the allocations that left the module on, as in Figures 4 to 6 of HeteroLoRA (arXiv 2406.14956).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from lozo_bench.display.figures import draw, rows_of
from lozo_bench.runs.outcome import ALLOCATION, EVENTS
from lozo_bench.runs.row import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

LOGS = Path(__file__).parent / "allocation_logs"
SHARES = "share of the allocations"
_ABSENT = "0.92"  # the grey of a module that the model does not have
_MODULE_INCHES = 0.26


@dataclass(frozen=True, slots=True)
class Heat:
    """How often modules were on.

    Attributes:
        title: what the numbers are of.
        shares: the share of the allocations in which a module was on, by projection and layer.
    """

    title: str
    shares: Mapping[tuple[str, int], float]

    @property
    def groups(self) -> list[str]:
        """The projections and shortcuts, in the model's order."""
        return list(dict.fromkeys(group for group, _ in self.shares))

    @property
    def layers(self) -> range:
        """The numbers of the layers."""
        return range(1 + max(layer for _, layer in self.shares))


def draw_allocation(folder: Path) -> Path | None:
    """Write the heat map of a run from its events; see `draw`.

    Returns:
        The figure's file, or None if the run allocates nothing or the figure cannot be drawn.
    """
    return draw(
        folder / ALLOCATION,
        lambda: heat_of(rows_of(folder / EVENTS)),
        lambda heat: heat_maps([heat]),
    )


def heat_of(events: Iterable[Row]) -> Heat | None:
    """Return how often each module was on in the allocations among a run's events."""
    by_step = {row["step"]: row for row in events if row.get("event") == "allocation"}
    allocations = [by_step[step] for step in sorted(by_step)]
    if not allocations or "groups" not in allocations[0]:
        return None
    groups = allocations[0]["groups"].split()
    layers = map(int, allocations[0]["layers"].split())
    sets = [row["enabled"] for row in allocations]
    shares = {
        place: fmean(enabled[i] == "1" for enabled in sets)
        for i, place in enumerate(zip(groups, layers, strict=True))
        if place[1] >= 0  # outside the blocks there is no layer
    }
    return Heat(_title(sets), shares) if shares else None


def _title(sets: Sequence[str]) -> str:
    on = sets[-1].count("1")
    title = f"{len(sets)} allocations: {on} of {len(sets[-1])} modules on"
    kept = [
        fmean(b == "1" for a, b in zip(before, after, strict=True) if a == "1")
        for before, after in pairwise(sets)
        if "1" in before
    ]
    return f"{title}; the next set keeps {fmean(kept):.0%} of them" if kept else title


def logged_heat(name: str) -> Heat:
    """Return what the authors logged: the counts in ``allocation_logs/NAME.csv``."""
    lines = (LOGS / f"{name}.csv").read_text(encoding="utf-8").splitlines()
    notes = [line.removeprefix("# ") for line in lines if line.startswith("#")]
    (count,) = (int(x.removeprefix("allocations: ")) for x in notes if x.startswith("alloc"))
    about = next(x.partition(":")[0] for x in notes if x.startswith("OPT"))
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    shares = {
        (group, int(row["layer"])): int(row[group]) / count
        for group in list(rows[0])[1:]
        for row in rows
        if row[group]
    }
    return Heat(f"authors' logs: {about}; {count} allocations", shares)


def heat_maps(heats: Sequence[Heat]) -> Figure:
    """Return a figure with one heat map below the other, all with the same shades."""
    from matplotlib.figure import Figure

    widest = max(len(heat.layers) for heat in heats)
    heights = [len(heat.groups) + 3 for heat in heats]  # room for a title and the layers' numbers
    size = (max(5.0, 3 + _MODULE_INCHES * widest), 0.4 + _MODULE_INCHES * sum(heights))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(heats), squeeze=False, height_ratios=heights)[:, 0].tolist()
    for heat, axes in zip(heats, panels, strict=True):
        draw_heat(axes, heat)
    figure.colorbar(shades(), ax=panels, label=SHARES, aspect=30)
    return figure


def shades() -> ScalarMappable:
    """Return the shades of all heat maps: from never to always."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(0, 1), colormaps["viridis"])


def draw_heat(axes: Axes, heat: Heat) -> None:
    """Draw a heat map; its shades are those of `shades`."""
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator

    colours = shades().to_rgba(np.array([*heat.shares.values()]))
    for (group, layer), colour in zip(heat.shares, colours, strict=True):
        corner = (layer - 0.5, heat.groups.index(group) - 0.5)
        square = Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white")
        square.set_gid(f"{group}/{layer}")
        axes.add_patch(square)
    axes.set_facecolor(_ABSENT)
    axes.set_xlim(-0.5, len(heat.layers) - 0.5)
    axes.set_ylim(len(heat.groups) - 0.5, -0.5)
    axes.set_yticks(range(len(heat.groups)), heat.groups)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_aspect("equal")
    axes.set_title(heat.title, fontsize="medium")
    axes.set_xlabel("layer")
