"""Draws ``search.svg``: how the searches of a run that takes the layers in turn went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lozo_bench.display.figures import draw, rows_of
from lozo_bench.runs.outcome import EVENTS, METRICS, SEARCH
from lozo_bench.runs.row import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

_LOSSES = {"best": "best loss of a turn", "best_ever": "best loss so far"}
_SCALES = ("loss on the training rows", "standard deviation")  # of both rows of panels
# From here on, viridis is too bright for a line on white.
_BRIGHTEST = 0.9


def draw_search(folder: Path) -> Path | None:
    """Write the figure of a run, from the rows of all its attempts; see `draw`.

    Returns:
        The figure's file, or None if the run did not search layers in turn or the figure cannot be
        drawn.
    """
    return draw(folder / SEARCH, lambda: _read(folder), lambda shown: _figure(*shown))


def _read(folder: Path) -> tuple[list[Row], list[float]] | None:
    """Return the rows of the turns, and the loss of the untouched model if it is known."""
    turns = [row for row in rows_of(folder / METRICS) if {"layer", "round", *_LOSSES} <= row.keys()]
    events = rows_of(folder / EVENTS)
    untouched = [row["loss"] for row in events if row.get("event") == "untouched_model"]
    return (turns, untouched[:1]) if turns else None


def _figure(turns: Sequence[Row], untouched: Sequence[float]) -> Figure:
    """Return the figure: losses in the upper row, standard deviations in the lower one.

    Args:
        turns: the rows of the turns.
        untouched: the loss of the model before the search, if it is known.
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    layers = 1 + max(int(row["layer"]) for row in turns)
    shades = [_BRIGHTEST * i / max(1, layers - 1) for i in range(layers)]
    colors = ListedColormap(colormaps["viridis"](shades))
    keys = sorted({key for row in turns for key in row if key.startswith("std_")})
    stds = {key: f"std of {key.removeprefix('std_')}" for key in keys}
    figure = Figure(figsize=(10, 6.4 if stds else 3.4), layout="constrained")
    columns = 2 * max(1, len(stds))
    grid = figure.add_gridspec(2 if stds else 1, columns)
    panels: list[Axes] = []
    for row, titles in enumerate([_LOSSES, stds]):
        width = columns // max(1, len(titles))
        for i, (key, title) in enumerate(titles.items()):
            same_scale = panels[0] if row == 0 and panels else None
            cells = grid[row, i * width : (i + 1) * width]
            axes = figure.add_subplot(cells, title=title, sharey=same_scale)
            _draw(axes, turns, key, colors)
            if i == 0:
                axes.set_ylabel(_SCALES[row])
            panels.append(axes)
    for axes in panels[: len(_LOSSES)]:
        for loss in untouched:
            axes.axhline(loss, color="0.35", linestyle="--", linewidth=1, label="untouched model")
            axes.legend(frameon=False, fontsize="small")
    _add_color_bar(figure, panels, colors, layers)
    return figure


def _draw(axes: Axes, turns: Sequence[Row], key: str, colors: Colormap) -> None:
    """Draw a number over the rounds, one line for each layer."""
    from matplotlib.ticker import MaxNLocator

    for layer in sorted({int(row["layer"]) for row in turns}):
        points = [(r["round"], r[key]) for r in turns if r["layer"] == layer and key in r]
        axes.plot(
            *zip(*points, strict=True),
            color=colors(layer),
            linewidth=1,
            marker="o" if len(points) == 1 else None,
            gid=f"{key}/{layer}",
        )
    axes.set_xlabel("round over the layers")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.spines[["top", "right"]].set_visible(False)


def _add_color_bar(figure: Figure, panels: list[Axes], colors: Colormap, layers: int) -> None:
    """Add a bar that says which colour is which layer's, with at most 12 numbers."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm

    edges = BoundaryNorm([i - 0.5 for i in range(layers + 1)], layers)
    bar = figure.colorbar(ScalarMappable(edges, colors), ax=panels, label="layer", aspect=40)
    bar.set_ticks(list(range(0, layers, -(-layers // 12))), minor=False)
    bar.minorticks_off()
