"""Draws ``bilevel.svg``: losses, the gap and dev curves of a bilevel run, over its seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lozo_bench.display.figures import draw, rows_of
from lozo_bench.runs.outcome import BILEVEL, EVENTS, METRICS
from lozo_bench.runs.row import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = tuple[list[float], list[float]]  # seconds, values
_LOSSES = {
    "upper_loss": "upper: F(theta, p)",
    "lower_loss_p": "lower: G(theta, p)",
    "lower_loss_s": "lower: G(theta, s)",
}


@dataclass(frozen=True)
class Panel:
    """A panel: its title and its curves by their labels."""

    title: str
    curves: dict[str, Curve]


def draw_bilevel(folder: Path) -> Path | None:
    """Write the figure of a run, from the rows of all its attempts; see `draw`.

    Returns:
        The figure's file, or None if the run was not bilevel or the figure cannot be drawn.
    """
    return draw(folder / BILEVEL, lambda: _read(folder), _figure)


def _read(folder: Path) -> list[Panel] | None:
    rows = rows_of(folder / METRICS)
    upper = [row for row in rows_of(folder / EVENTS) if row.get("event") == "upper"]
    if not upper or "gap" not in upper[0]:
        return None
    timed = sorted((row["step"], row["elapsed_s"]) for row in rows if "elapsed_s" in row)
    losses = {label: _curve(upper, key, timed) for key, label in _LOSSES.items()}
    dev = [row for row in rows if "dev_loss" in row]
    metric = next((k for row in dev for k in row if k.startswith("dev/p.")), "dev/p.loss")
    name = metric.removeprefix("dev/p.")
    both = {copy: _curve(dev, f"dev/{copy}.{name}", timed) for copy in ("p", "s")}
    gap = {"G(theta, p) - G(theta, s)": _curve(upper, "gap", timed)}
    return [Panel("losses of upper steps", losses), Panel("gap", gap), Panel(f"dev {name}", both)]


def _curve(rows: Sequence[Row], key: str, timed: Sequence[tuple[float, float]]) -> Curve:
    """Return a number of each row over the seconds at its step, between the steps that are timed.

    Without a timed step, as in a run of fewer steps than ``log_every``, it is over the steps.
    """
    points = [(row["step"], row[key]) for row in rows if key in row]
    steps, values = [step for step, _ in points], [value for _, value in points]
    if not timed:
        return steps, values
    at, seconds = [0.0, *(step for step, _ in timed)], [0.0, *(s for _, s in timed)]
    return [float(x) for x in np.interp(steps, at, seconds)], values


def _figure(panels: Sequence[Panel]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for panel, axes in zip(panels, figure.subplots(1, len(panels)), strict=True):
        _draw(axes, panel)
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    # Okabe and Ito's colours, which colour-blind readers tell apart.
    for (label, (x, y)), color in zip(
        panel.curves.items(), ("#0072B2", "#D55E00", "#009E73"), strict=False
    ):
        marker = "o" if len(x) == 1 else None
        axes.plot(x, y, label=label, color=color, linewidth=1.2, marker=marker, gid=label)
    axes.set_title(panel.title)
    axes.set_xlabel("seconds of training")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
