"""Select the point of a grid that a table shows, by results on the dev rows only."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

from lozo_bench.config.schema import By, Pick
from lozo_bench.errors import bad_value

Point = TypeVar("Point", bound=Hashable)


@dataclass(frozen=True, slots=True)
class DevMetrics:
    """A run's results on its dev rows.

    It holds no test metric, so that selection cannot depend on one. ``metric`` is None if the run
    evaluated only the loss on its dev rows.
    """

    metric: float | None
    loss: float

    def badness(self, by: By) -> float:
        """Return the value to minimise: the dev loss or the negated dev metric.

        Raises:
            UserError: ``by`` asks for a dev metric and there is none.
        """
        if by is By.dev_loss:
            return self.loss
        if self.metric is None:
            raise bad_value(
                "table.by", by.value, "dev_loss, because the runs have no metric on their dev rows"
            )
        return -self.metric


def select_points(
    seen: Mapping[Point, Mapping[str, DevMetrics]], seeds: Sequence[str], pick: Pick, by: By
) -> dict[str, Point]:
    """Return the selected point of the grid for each seed.

    If several points are equally good, the first in the grid's order is selected.

    Args:
        seen: the dev results of each point's finished runs, by point in the grid's order, by seed.
        seeds: all planned seeds. The result omits a seed that has no finished run.
        pick: ``per_seed`` selects a point for each seed separately. ``overall`` selects one point
            for all seeds, among the points that are finished for every seed that has any run.
        by: the dev metric (higher is better) or the dev loss (lower is better).
    """
    finished = [seed for seed in seeds if any(seed in runs for runs in seen.values())]
    if pick is Pick.per_seed:
        return {
            seed: _best(seen, [point for point in seen if seed in seen[point]], [seed], by)
            for seed in finished
        }
    complete = [point for point, runs in seen.items() if finished and set(finished) <= set(runs)]
    if not complete:
        return {}
    return dict.fromkeys(finished, _best(seen, complete, finished, by))


def _best(
    seen: Mapping[Point, Mapping[str, DevMetrics]],
    points: Sequence[Point],
    seeds: Sequence[str],
    by: By,
) -> Point:
    """Return the best of ``points`` by the mean over ``seeds``; a single point needs no metric."""
    if len(points) == 1:
        return points[0]
    return min(points, key=lambda point: fmean(seen[point][seed].badness(by) for seed in seeds))
