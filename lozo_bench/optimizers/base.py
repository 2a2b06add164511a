"""The one door: what every optimizer is given, and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Protocol

from torch import Tensor

from lozo_bench.engine.score import Engine, Score
from lozo_bench.errors import bad_value

__all__ = ["Engine", "Optimizer", "Report", "Score", "Steps", "Weights"]

Weights = Mapping[str, Tensor]


class Steps(Enum):
    """What an optimizer's candidates are, which decides what kind of engine can score them."""

    thin = "low-rank versions of the weights"
    full_rank = "versions along directions of full rank"
    gradient = "none: it differentiates"
    closed_form = "none: it solves for the output layer"
    none = "none: it makes no steps"


@dataclass(frozen=True, slots=True)
class Report:
    """What one step cost and found: loss near X, passes spent, and numbers worth plotting."""

    loss: float
    forwards: int
    backwards: int = 0
    scalars: Mapping[str, float] = field(default_factory=dict)


class Optimizer(Protocol):
    """A method. Its constructor takes (engine, draws, *, options) and checks their ranges.

    One that takes derivatives though its steps are made of scalars says so: ``differentiates``;
    one that differentiates in passes that drop out: ``dropout``.
    """

    steps: ClassVar[Steps]
    lr: float

    def step(self, score: Score) -> Report:
        """One step: ask for losses, move the weights."""
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
