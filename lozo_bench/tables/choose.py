"""Which point of a grid a table shows, by what was seen on dev rows and by nothing else."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

from lozo_bench.config import By, Pick
from lozo_bench.errors import bad_value

Point = TypeVar("Point", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Dev:
    """What a run saw on its dev rows; it has no test metric, so that none can be chosen by.

    ``metric`` is None where the dev rows were judged by their loss alone.
    """

    metric: float | None
    loss: float

    def badness(self, by: By) -> float:
        """The lower, the better. Raises UserError if there is no dev metric to choose by."""
        if by is By.dev_loss:
            return self.loss
        if self.metric is None:
            raise bad_value(
                "table.by", by.value, "dev_loss: the runs judged their dev rows by the loss alone"
            )
        return -self.metric


def chosen(
    seen: Mapping[Point, Mapping[str, Dev]], seeds: Sequence[str], pick: Pick, by: By
) -> dict[str, Point]:
    """For each seed the point that counts; the first of equals.

    Args:
        seen: of each point, in the grid's order, what its finished runs saw, by seed.
        seeds: all that were planned; one is left out of the answer if it has no finished run.
        pick: ``per_seed`` chooses for each seed by itself. ``overall`` chooses one for all, of
            those points for which every seed that is finished anywhere is finished.
        by: dev metric, the higher the better, or dev loss.
    """
    there = [seed for seed in seeds if any(seed in runs for runs in seen.values())]
    if pick is Pick.per_seed:
        return {
            seed: _best(seen, [point for point in seen if seed in seen[point]], [seed], by)
            for seed in there
        }
    whole = [point for point, runs in seen.items() if there and set(there) <= set(runs)]
    if not whole:
        return {}
    return dict.fromkeys(there, _best(seen, whole, there, by))


def _best(
    seen: Mapping[Point, Mapping[str, Dev]], points: Sequence[Point], seeds: Sequence[str], by: By
) -> Point:
    """The first of the least bad over these seeds; a single one is not asked how bad it is."""
    if len(points) == 1:
        return points[0]
    return min(points, key=lambda point: fmean(seen[point][seed].badness(by) for seed in seeds))
