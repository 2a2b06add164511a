"""The one door: what every optimizer is given, and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from lozo_bench.engine.in_place import Direction
from lozo_bench.errors import bad_value

Weights = Mapping[str, Tensor]


class Score(Protocol):
    """The model's loss on the batch of one step."""

    def __call__(self, direction: Direction, at: Sequence[float]) -> list[float]:
        """Losses at X + k * direction for each k in ``at``."""
        ...

    def loss(self) -> Tensor:
        """The differentiable loss at X."""
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """What one step cost and found: loss near X, passes spent, and numbers worth plotting."""

    loss: float
    forwards: int
    backwards: int = 0
    scalars: Mapping[str, float] = field(default_factory=dict)


class Optimizer(Protocol):
    """A method. Its constructor takes (X, draws, *, options) and checks the options' ranges."""

    lr: float

    def step(self, score: Score) -> Report:
        """One step: ask for losses, move X."""
        ...


def check_positive(key: str, value: float) -> None:
    """Raise BadValueError unless ``value`` > 0 and finite."""
    if not 0 < value < math.inf:
        raise bad_value(key, value, "a number > 0")


def check_fraction(key: str, value: float) -> None:
    """Raise BadValueError unless 0 <= ``value`` < 1."""
    if not 0 <= value < 1:
        raise bad_value(key, value, "a number from 0 to below 1")


def check_not_negative(key: str, value: float) -> None:
    """Raise BadValueError unless ``value`` >= 0 and finite."""
    if not 0 <= value < math.inf:
        raise bad_value(key, value, "a number >= 0")


def check_count(key: str, value: int) -> None:
    """Raise BadValueError unless ``value`` >= 1."""
    if value < 1:
        raise bad_value(key, value, "a whole number >= 1")
