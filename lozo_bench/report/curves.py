"""The curves of a report: of each run, and the mean and deviation of runs that differ in seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from lozo_bench.api.result import Result
from lozo_bench.plots.curves import Axis, Curve, Numbers, costs, dev_metric, measured
from lozo_bench.plots.figure import mean_and_std
from lozo_bench.report.shorten import corners, extremes, rounded, whole

Rows = Sequence[Mapping[str, Any]]
AXES = [axis for axis in get_args(Axis) if axis != "steps"]
_POINTS_OF_MEAN = 400
_POINTS_OF_RUN = 160
# The cost at a step is kept to within this share of the run's whole cost.
_OF_COST = 0.002


@dataclass(frozen=True, slots=True)
class Curves:
    """What was measured in a run, by what it is (``loss``, ``dev``, ``dev_loss``), and its costs.

    Args:
        metric: the name of the task's metric on the dev rows, such as ``accuracy``.
        shown: the measured values against steps.
        costs: the steps and what had been spent at each, by axis; an axis that is not known is
            left out.
    """

    metric: str
    shown: Mapping[str, Curve]
    costs: Mapping[str, Curve]


def curves_of(run: Result, rows: Rows) -> Curves:
    """Return the curves of a run from the rows of its metrics."""
    name = dev_metric(rows)
    found = {"loss": measured(rows, "loss"), "dev": measured(rows, "dev")}
    found["dev_loss"] = [(row["step"], row["dev_loss"]) for row in rows if "dev_loss" in row]
    spent = {axis: costs(axis, rows, run) for axis in AXES}
    return Curves(
        "" if name is None else name.removeprefix("dev").lstrip("_/"),
        {key: _curve(points) for key, points in found.items() if points},
        {axis: Curve(*pair) for axis, pair in spent.items() if pair is not None},
    )


def _curve(points: Sequence[tuple[int, float]]) -> Curve:
    last = dict(points)  # of several values of one step the last one counts
    x, y = zip(*sorted(last.items()), strict=True)
    return Curve(np.array(x, dtype=float), np.array(y, dtype=float))


def drawn(curves: Curves) -> dict[str, Any]:
    """Return the curves of one run for the page: ``{"loss": {"s": steps, "y": values}, ...}``."""
    shown = {key: _points(curve, None, _POINTS_OF_RUN) for key, curve in curves.shown.items()}
    return {"metric": curves.metric, **shown, "cost": _costs(curves.costs)}


def averaged(several: Sequence[Curves]) -> dict[str, Any]:
    """Return the mean curves of runs that differ in their seeds, and ``d``, their deviation.

    The mean is that of equal steps; where it lies on another axis is the mean cost of the step.
    """
    shown: dict[str, Any] = {}
    for key in ("loss", "dev", "dev_loss"):
        found = [curves.shown[key] for curves in several if key in curves.shown]
        if not found:
            continue
        x, mean, std = mean_and_std(found)
        shown[key] = _points(Curve(x, mean), std if len(found) > 1 else None, _POINTS_OF_MEAN)
        shown[key]["n"] = len(found)
    known = [axis for axis in AXES if all(axis in curves.costs for curves in several)]
    spent = {axis: _mean_cost([curves.costs[axis] for curves in several]) for axis in known}
    return {**shown, "cost": _costs(spent)}


def _mean_cost(found: Sequence[Curve]) -> Curve:
    if len(found) == 1:
        return found[0]
    longest = max(found, key=lambda curve: curve.x[-1])
    return replace(longest, y=np.mean([_extended(curve, longest.x) for curve in found], axis=0))


def _extended(curve: Curve, steps: Numbers) -> Numbers:
    """Return the cost at these steps; of steps that a run has not made, at its mean rate."""
    y = np.interp(steps, curve.x, curve.y)
    last, spent = curve.x[-1], curve.y[-1]
    return np.where(steps > last, spent * steps / last, y) if last else y


def _points(curve: Curve, std: Numbers | None, most: int) -> dict[str, Any]:
    kept = extremes(curve.y, most)
    points: dict[str, Any] = {"s": whole(curve.x[kept]), "y": rounded(curve.y[kept])}
    if len(kept) < len(curve.x):
        points["of"] = len(curve.x)
    if std is not None:
        points["d"] = rounded(std[kept])
    return points


def _costs(found: Mapping[str, Curve]) -> dict[str, list[list[float | int]]]:
    costs = {}
    for axis, curve in found.items():
        kept = corners(curve.x, curve.y, _OF_COST * float(curve.y[-1]))
        costs[axis] = [whole(curve.x[kept]), whole(curve.y[kept])]
    return costs
