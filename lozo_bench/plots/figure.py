"""Draws panels of curves: a line for the mean over the seeds, a band of one standard deviation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lozo_bench.plots.curves import Axis, Curve, Numbers, Panel
from lozo_bench.plots.style import BAND, looks, save, style
from lozo_bench.runs.apart import as_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Points above the quantile are cut off if they would make the figure this many times as high.
_MOST, _FAR = 0.95, 4.0
_AXES = {
    "steps": "steps",
    "forwards": "forward passes",
    "passes": "forward and backward passes",
    "queries": "queries (forward passes of one row)",
    "tokens": "tokens",
    "seconds": "seconds of training",
}


def draw(rows: Sequence[Sequence[Panel]], axis: Axis, out: Path) -> None:
    """Write the figure of all panels.

    Args:
        rows: the panels, row by row; a row shares its horizontal axis.
        axis: what the horizontal axis is.
        out: a .png, .svg or .pdf file.

    Raises:
        UserError: matplotlib is not installed, or it cannot write such a file.
    """
    columns = len(rows[0])
    with style("lozo-plot"):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(3.8 * columns + 2.6, 2.8 * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), columns, squeeze=False, sharex="row")
        labels = {label for panels in rows for panel in panels for label in panel.curves}
        names = sorted(labels, key=in_order)
        for panels, places in zip(rows, axes, strict=True):
            for panel, place in zip(panels, places, strict=True):
                draw_curves(place, panel, looks(names), _AXES[axis])
            places[-1].legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
        save(figure, out)


def in_order(label: str) -> list[tuple[bool, float, str]]:
    """Return a key by which labels are sorted: the words in turn, numbers by their size."""
    values = [(word.rpartition("=")[2], word) for word in label.split()]
    numbers = [(as_number(value), word) for value, word in values]
    return [(isinstance(x, str), 0.0 if isinstance(x, str) else x, word) for x, word in numbers]


def draw_curves(
    axes: Axes, panel: Panel, by_label: Mapping[str, tuple[str, str]], below: str
) -> None:
    """Draw the curves of a panel: the mean of each label with a band of one standard deviation.

    Args:
        axes: where.
        panel: the curves.
        by_label: the colour and the line style of each label; others are not drawn.
        below: what the horizontal axis is.
    """
    for label, (colour, line) in by_label.items():
        if label not in panel.curves:
            continue
        curves = panel.curves[label]
        x, mean, std = mean_and_std(curves)
        name = f"{label} (n={len(curves)})"
        marker = "o" if len(x) == 1 else None
        axes.plot(x, mean, color=colour, linestyle=line, linewidth=1.4, marker=marker, label=name)
        if len(curves) > 1:
            axes.fill_between(x, mean - std, mean + std, color=colour, alpha=BAND, linewidth=0)
    title = panel.title
    if limits := _limits(panel):
        axes.set_ylim(*limits)
        title += "; cut off above"
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel(below)


def _limits(panel: Panel) -> tuple[float, float] | None:
    """Return the vertical limits if a few points are far above all others: a run that diverged."""
    found = [curve.y for curves in panel.curves.values() for curve in curves]
    if not found:
        return None
    y = np.concatenate(found)
    low, most = float(y.min()), float(np.quantile(y, _MOST))
    if float(y.max()) - low <= _FAR * (most - low):
        return None
    margin = 0.1 * (most - low)
    return low - margin, most + margin


def mean_and_std(curves: Sequence[Curve]) -> tuple[Numbers, Numbers, Numbers]:
    """Return x, the mean and the standard deviation of y over the curves, where all have values.

    Seconds differ from run to run, so values between two points are on the line between them.
    """
    first, last = max(curve.x[0] for curve in curves), min(curve.x[-1] for curve in curves)
    x = np.unique(np.concatenate([curve.x for curve in curves]))
    x = x[(x >= first) & (x <= last)]
    if not len(x):  # they do not overlap
        x = np.array([last])
    y = np.stack([np.interp(x, curve.x, curve.y) for curve in curves])
    return x, y.mean(0), y.std(0)
