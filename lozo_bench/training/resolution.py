"""Checks whether a method's distance from the weights changes the loss by more than rounding.

A slope is a difference of losses divided by their distance. If the distance is so small that the
losses differ by rounding only, the slope is zero or noise. The first steps of a run show this: then
the candidates of one step are scored again, farther and farther from the weights, until the
difference of their losses grows in proportion to the distance. This is where slopes begin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lozo_bench.engine.protocol import Engine
from lozo_bench.engine.score import FirstCandidates, Score
from lozo_bench.engine.tensors import same_bits
from lozo_bench.errors import Stopped
from lozo_bench.optimizers.base import Optimizer

# So many steps in a row must be suspicious, because one direction may happen to have a small
# slope. If the losses are equal even in float32, one step is enough.
_STEPS = 3
_FLOAT32 = torch.finfo(torch.float32).eps
_FARTHER = 4.0  # factor between two distances
_FARTHEST = 1.0  # a distance that is no small change of any weight
_FLAT = 0.5  # slopes of neighbouring distances differ by less than this fraction of them


class ResolutionCheck:
    """Watches the first steps of a run.

    Args:
        optimizer: the method; one that asks for no losses away from the weights is not watched.
        engine: holds the weights. What a measurement moves, it restores.
        steps: how many steps the run makes.
        scratch: a folder for a copy of the weights; None: it is in memory.
    """

    def __init__(
        self, optimizer: Optimizer | None, engine: Engine, steps: int, scratch: Path | None = None
    ) -> None:
        self.engine, self.scratch = engine, scratch
        self.key, self.eps = _distance(optimizer)
        self.left = min(_STEPS, steps) if self.key else 0

    def after(self, score: Score) -> str | None:
        """Return a warning if the steps up to this one saw only rounding; at most one in a run.

        Args:
            score: the score of a step that has just been made.
        """
        if not self.left:
            return None
        first = score.first
        unit = max(torch.finfo(x.dtype).eps for x in self.engine.X.values())
        if first is None or len(first.losses) < 2 or not _equal(first.losses, unit):
            self.left = 0
            return None
        self.left -= 1
        if self.left and not _equal(first.losses, _FLOAT32):
            return None
        self.left = 0
        return self._warning(first)

    def _warning(self, first: FirstCandidates) -> str | None:
        before = self.engine.snapshot(self.scratch)
        factor = None
        try:
            factor = smallest_resolved(
                lambda by: _difference(first.farther(by)), _FARTHEST / self.eps
            )
        except Stopped:  # the step is made already; the next one stops
            pass
        finally:
            state = before.tensors()
            if not same_bits(self.engine.tensors(), state):
                self.engine.load_state(state)
        if factor is None or factor <= _FARTHER:
            return None
        smallest = f"{self.eps * factor * _FARTHER:.0e}"  # where noise is a fraction of a slope
        return (
            f"optimizer.{self.key}={self.eps:g}: the losses of a step differ by rounding only (by "
            f"{abs(_difference(first.losses)):.1e} at a loss of {first.losses[0]:.4f}), so its "
            f"slope is noise. Measured on a batch of this run, the smallest sensible one is about "
            f"{smallest}. What to do: optimizer.{self.key}={smallest} or larger; the default is "
            "usual"
        )


def smallest_resolved(difference: Callable[[float], float], farthest: float) -> float | None:
    """Return the smallest factor from which on the difference grows in proportion to it.

    Args:
        difference: the difference of two losses whose distances are multiplied by a factor.
        farthest: the largest factor that is tried.

    Returns:
        A power of 4 from 1 on; None if there is no such factor.
    """
    slopes: list[float] = []
    factor = 1.0
    while factor <= farthest:
        slopes.append(difference(factor) / factor)
        if len(slopes) >= 3 and _agree(slopes[-3:]):
            return factor / _FARTHER**2
        factor *= _FARTHER
    return None


def _agree(slopes: Sequence[float]) -> bool:
    last = slopes[-1]
    return last != 0 and all(abs(slope - last) <= _FLAT * abs(last) for slope in slopes)


def _difference(losses: Sequence[float]) -> float:
    return losses[1] - losses[0]


def _equal(losses: Sequence[float], unit: float) -> bool:
    """Return whether two losses are equal to rounding in a dtype with this unit.

    A mean loss over a batch rounds to some units of float32. In half precision the activations
    round, and the loss has about one unit of noise.
    """
    return abs(_difference(losses)) <= max(unit, 16 * _FLOAT32) * abs(losses[0])


def _distance(optimizer: Optimizer | None) -> tuple[str, float]:
    """Return the name and value of a method's distance from the weights; "" if it has none."""
    if optimizer is not None and optimizer.needs.directions is not None:
        optimizer = getattr(optimizer, "wrapped", optimizer)  # inside an allocation
        for key in ("eps", "sigma"):
            if (value := getattr(optimizer, key, None)) is not None:
                return key, float(value)
    return "", 0.0
