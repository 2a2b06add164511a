"""Training losses against epochs, one line for each value of a choice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lozo_bench.display.figures import rows_of
from lozo_bench.figures.panel import Source, finished
from lozo_bench.plots.curves import Curve
from lozo_bench.plots.curves import Panel as Curves
from lozo_bench.plots.figure import draw_curves
from lozo_bench.plots.style import looks
from lozo_bench.runs.outcome import METRICS
from lozo_bench.runs.result_file import load_result
from lozo_bench.tables.cells import Sweep
from lozo_bench.tables.show import title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 60  # of a curve: the losses of single batches are averaged in between


@dataclass(frozen=True, slots=True)
class Losses:
    """Curves of the training loss, each the mean of its seeds with a band.

    Args:
        title: what the panel shows.
        source: the runs.
        by: the choice that tells the curves apart, such as ``method``.
    """

    title: str
    source: Source
    by: str = "method"

    def draw(self, axes: Axes, sweep: Sweep | None) -> bool:
        """Draw the curves of finished runs; see `Panel`."""
        curves: dict[str, list[Curve]] = defaultdict(list)
        epochs = True
        for run in finished(sweep):
            assert sweep is not None
            label = title(sweep.table, run.choices[self.by])
            found, in_epochs = _curve(run.folder)
            epochs = epochs and in_epochs
            if found is not None:
                curves[label].append(found)
        below = "epochs" if epochs else "steps"
        draw_curves(axes, Curves(self.title, curves), looks(list(curves)), below)
        axes.set_ylabel("training loss")
        return bool(curves)


def _curve(folder: Path) -> tuple[Curve | None, bool]:
    """Return the losses of a run, and whether they are against epochs, and not against steps."""
    points = [(row["step"], row["loss"]) for row in rows_of(folder / METRICS) if "loss" in row]
    if not points:
        return None, True
    config = (load_result(folder) or {}).get("config", {})
    rows = _training_rows(config.get("task", {}))
    scale = config.get("batch_size", 1) / rows if rows else 1.0
    parts = np.array_split(np.array(points, dtype=float), min(_POINTS, len(points)))
    means = np.array([part.mean(0) for part in parts])
    return Curve(scale * means[:, 0], means[:, 1]), bool(rows)


def _training_rows(task: Mapping[str, Any]) -> int | None:
    """Return how many rows an epoch has; None if the config does not say."""
    return task.get("invented_rows") or (task.get("source") or {}).get("num_train")
