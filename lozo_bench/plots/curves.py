"""Reads the curves of runs from their metrics: what was measured, against what it had cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lozo_bench.api.result import Result
from lozo_bench.errors import UserError
from lozo_bench.runs.labels import labels

Axis = Literal["steps", "forwards", "passes", "queries", "tokens", "seconds"]
Shown = Literal["loss", "dev", "gap"]
Numbers = NDArray[np.float64]
Row = Mapping[str, Any]

# The entries of a row whose sum is the axis, and those of result.json whose sum is the run's total.
_OF_ROWS = {
    "forwards": ("forward_passes",),
    "passes": ("forward_passes", "backward_passes"),
    "queries": ("queries",),
    "tokens": ("tokens",),
    "seconds": ("elapsed_s",),
}
_TOTALS = {"passes": ("forwards", "backwards"), "queries": ("queries",), "tokens": ("tokens",)}


@dataclass(frozen=True, slots=True)
class Curve:
    """What was measured in one run: ``y`` at ``x``, both [points]."""

    x: Numbers
    y: Numbers


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves on one pair of axes.

    Args:
        title: what is drawn, and for which task and model.
        curves: the curves of each label, one for each seed.
    """

    title: str
    curves: Mapping[str, Sequence[Curve]]


def panels(runs: Sequence[Result], axis: Axis, shown: Sequence[Shown]) -> list[list[Panel]]:
    """Return a row of panels for each task and model: one panel for each thing to show.

    Raises:
        UserError: no run has anything to show on this axis.
    """
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for run in runs:
        task, model = (str((run.config.get(node) or {}).get("name")) for node in ("task", "model"))
        groups[task, model].append(run)
    found = [
        [_panel(f"{task}, {model}", group, axis, name) for name in shown]
        for (task, model), group in sorted(groups.items())
    ]
    if not any(panel.curves for row in found for panel in row):
        raise UserError(
            f"nothing to draw against {axis}: the runs have no such rows yet; queries, tokens and "
            f"passes are known of finished runs, and {get_args(Axis)[0]} of all"
        )
    return found


def _panel(where: str, runs: Sequence[Result], axis: Axis, shown: Shown) -> Panel:
    curves: dict[str, list[Curve]] = defaultdict(list)
    title = {"loss": "training loss", "dev": "dev", "gap": "dev loss - training loss"}[shown]
    names = labels([(run.folder, run.config) for run in runs])
    for label, run in zip(names, runs, strict=True):
        rows = run.history()
        if shown == "dev" and (metric := dev_metric(rows)) is not None:
            title = f"dev {metric.removeprefix('dev').lstrip('_/')}"
        points = measured(rows, shown)
        xs = costs(axis, rows, run)
        if points and xs is not None:
            at, y = zip(*points, strict=True)
            x = np.interp(at, *xs) if axis != "steps" else np.array(at, dtype=float)
            curves[str(label)].append(Curve(x, np.array(y, dtype=float)))
    return Panel(f"{title} ({where})", curves)


def measured(rows: Sequence[Row], shown: Shown) -> list[tuple[int, float]]:
    """Return the steps and the values of what is shown."""
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    if shown == "loss":
        return losses
    key = "dev_loss" if shown == "gap" else dev_metric(rows)
    dev = [(row["step"], row[key]) for row in rows if key is not None and key in row]
    if shown == "dev":
        return dev
    found, before = [], 0
    for step, value in dev:  # a step's loss is of one batch: those since the last dev are averaged
        since = [loss for at, loss in losses if before < at <= step]
        if since:
            found.append((step, value - sum(since) / len(since)))
        before = step
    return found


def dev_metric(rows: Sequence[Row]) -> str | None:
    """Return the name of the task's own metric on the dev rows, which is the first one."""
    names = (name for row in rows for name in row if name.startswith(("dev_", "dev/")))
    return next(names, None)


def costs(axis: Axis, rows: Sequence[Row], run: Result) -> tuple[Numbers, Numbers] | None:
    """Return steps and what the run had cost at each; None if it is not known.

    Rows of former versions have forward passes and seconds alone. Then the run's total is spread
    over its forward passes, which is right if all its steps cost alike.
    """
    if axis == "steps":
        return np.zeros(1), np.zeros(1)
    if (known := _known(_OF_ROWS[axis], rows)) is not None or axis not in _TOTALS:
        return known
    passes, all_forwards = _known(_OF_ROWS["forwards"], rows), run.values.get("forwards")
    if passes is None or not all_forwards:
        return None
    total = sum(run.values.get(name, 0) for name in _TOTALS[axis])
    return passes[0], passes[1] * (total / all_forwards)


def _known(keys: Sequence[str], rows: Sequence[Row]) -> tuple[Numbers, Numbers] | None:
    """Return the steps whose rows have these entries and the sum of them at each, from 0 on."""
    found = {
        row["step"]: float(sum(row[key] for key in keys))
        for row in reversed(rows)  # of one step's rows the first one counts
        if row["step"] and all(key in row for key in keys)
    }
    if not found:
        return None
    steps, x = (
        np.array(column, dtype=float) for column in zip(*sorted(found.items()), strict=True)
    )
    # The row of the test metrics may have an earlier step than its costs.
    return np.append(0.0, steps), np.append(0.0, np.maximum.accumulate(x))
