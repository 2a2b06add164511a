"""Lays the panels of a figure out and writes its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lozo_bench.figures.panel import Panel
from lozo_bench.plots.style import save, style
from lozo_bench.tables.cells import MADE_UP, Sweep


@dataclass(frozen=True, slots=True)
class Page:
    """A figure of a paper.

    Args:
        title: which figure it is, and what it shows.
        panels: from left to right, and from top to bottom.
        columns: panels beside each other.
        same_axes: whether all panels have the same vertical axis.
        width: of a panel, in inches.
    """

    title: str
    panels: tuple[Panel, ...]
    columns: int = 3
    same_axes: bool = False
    width: float = 3.8


def draw(page: Page, sweeps: Sequence[Sweep | None], out: Path) -> list[str]:
    """Write a figure as a .png, .svg or .pdf file.

    Args:
        page: the figure.
        sweeps: the runs of each panel.
        out: the file.

    Returns:
        The titles of the panels for which no run is finished.

    Raises:
        UserError: matplotlib is not installed, or it cannot write such a file.
    """
    empty = []
    with style("lozo-figures"):
        from matplotlib.figure import Figure

        columns = min(page.columns, len(page.panels))
        rows = -(-len(page.panels) // columns)
        figure = Figure(figsize=(page.width * columns + 1.6, 3.0 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=page.same_axes).flat
        axes = list(grid)
        for spare in axes[len(page.panels) :]:
            spare.remove()
        for panel, sweep, place in zip(page.panels, sweeps, axes, strict=False):
            place.set_title(panel.title, fontsize="medium")
            if not panel.draw(place, sweep):
                empty.append(panel.title)
                place.text(0.5, 0.5, "no finished runs", transform=place.transAxes, ha="center")
            if page.same_axes and place is not axes[0]:
                place.set_ylabel("")
        handles = {
            label: handle
            for place in axes[: len(page.panels)]
            for handle, label in zip(*place.get_legend_handles_labels(), strict=True)
        }
        if handles:
            figure.legend(handles.values(), handles.keys(), loc="outside right upper")
        if any(sweep and MADE_UP in sweep.table.title for sweep in sweeps):
            figure.supxlabel(MADE_UP, fontsize="medium")
        save(figure, out)
    return empty
