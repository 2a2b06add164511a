"""Shortens curves, so that the size of a report does not grow with the number of steps."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from lozo_bench.plots.curves import Numbers

_DIGITS = 5  # significant ones of what is drawn


def extremes(y: Numbers, most: int) -> list[int]:
    """Return the places of at most ``most`` points that keep the extremes of a curve.

    The curve is cut into buckets of equally many points, and the lowest and the highest point of
    each is kept, besides the first and the last point of all.
    """
    count = len(y)
    if count <= most:
        return list(range(count))
    edges = np.linspace(1, count - 1, max(1, (most - 2) // 2) + 1).astype(int)
    kept = {0, count - 1}
    for first, end in pairwise(edges):
        bucket = y[first:end]
        kept |= {int(first + bucket.argmin()), int(first + bucket.argmax())}
    return sorted(kept)


def corners(x: Numbers, y: Numbers, tolerance: float) -> list[int]:
    """Return the places between which a curve is straight, to within a tolerance in y.

    This is the algorithm of Ramer, Douglas and Peucker with vertical distances.
    """
    kept, left = {0, len(x) - 1}, [(0, len(x) - 1)]
    while left:
        first, last = left.pop()
        if last - first < 2:
            continue
        inner = slice(first + 1, last)
        off = np.abs(np.interp(x[inner], x[[first, last]], y[[first, last]]) - y[inner])
        worst = int(off.argmax())
        if off[worst] > tolerance:
            middle = first + 1 + worst
            kept.add(middle)
            left += [(first, middle), (middle, last)]
    return sorted(kept)


def rounded(values: Numbers) -> list[float | int]:
    """Return numbers that take little room: five significant digits, whole ones without a point."""
    short = [float(f"{value:.{_DIGITS}g}") for value in values.tolist()]
    return [int(value) if value.is_integer() else value for value in short]


def whole(values: Numbers) -> list[float | int]:
    """Return steps or costs: all digits of whole numbers, and milliseconds of seconds."""
    return [int(value) if value.is_integer() else round(value, 3) for value in values.tolist()]
