"""The interface between the training loop and an optimizer: what it needs, gets and returns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from lozo_bench.engine.protocol import Engine
from lozo_bench.engine.score import Score
from lozo_bench.errors import bad_value

__all__ = [
    "Engine",
    "Event",
    "HasViews",
    "Needs",
    "Optimizer",
    "Report",
    "Score",
    "Stream",
    "Weights",
]

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Stream:
    """A sequence of batches of training rows.

    Args:
        rows: which rows: from which to which share of all training rows, in a random order that
            depends on the run's seed only. Streams whose shares do not overlap share no row.
        batch_size: rows of a batch; None: the run's ``batch_size``; ``all``: all rows of the
            stream, in the same order at every step.
        order: ``shuffled``: every epoch in a new order, which depends on the run's seed, the
            stream's name and the epoch; ``fixed``: every epoch in the same order.
        limit: after so many batches, or after its first epoch if that has fewer, the stream begins
            again with the same batches; None: it does not.
        task: the name of the one task whose rows these are, of a run with several; ``rows`` are
            shares of its rows then. None: all tasks, each with this share of its rows.

    Raises:
        BadValueError: the shares are not 0 <= start < end <= 1, or the batch size or the limit is
            below 1.
    """

    rows: tuple[float, float] = (0.0, 1.0)
    batch_size: int | Literal["all"] | None = None
    order: Literal["shuffled", "fixed"] = "shuffled"
    limit: int | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        start, end = self.rows
        if not 0 <= start < end <= 1:
            raise bad_value("rows", self.rows, "two shares: 0 <= start < end <= 1")
        if isinstance(self.batch_size, int):
            check_count("batch_size", self.batch_size)
        elif self.batch_size not in (None, "all"):
            raise bad_value("batch_size", self.batch_size, "a whole number >= 1, all or None")
        if self.order not in ("shuffled", "fixed"):
            raise bad_value("order", self.order, "shuffled or fixed")
        if self.limit is not None:
            check_count("limit", self.limit)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a method needs of a run; the run is built to fit it.

    Args:
        directions: along which directions it asks for losses: ``low_rank`` ones, which any engine
            can score, ``full_rank`` ones, which are scored in place, or none.
        gradient: it takes derivatives of the loss, which must therefore be differentiable.
        replayable: its steps can be made again from the recorded losses alone. If not, the run
            keeps full checkpoints.
        features: it is given what the output layer reads, and solves for that layer.
        dropout: the passes that it differentiates use the model's dropout.
        steps: how many steps it makes, if the method fixes the number. It may be known only once
            the optimizer has its weights: of one without weights it is None then.
        batch: the rows of each step's own batch.
        streams: further batches that a step can ask for by name, with `Score.on`.
        dev_after_last_step: dev is evaluated after the last step too, if that is no multiple of
            ``eval_every``. Where this is false it still is, if there was no other evaluation, or
            if the last step is the one to test (``task.select=last``).
        two_level: it trains all weights by losses, and an adapter with several sets of values by
            gradients (see `lozo_bench.engine.value_sets`).
        any_length: although an option says how long the run is, such as ``total_steps`` or
            ``budget``, the first steps of a longer run are those of a shorter one.
    """

    directions: Literal["low_rank", "full_rank"] | None = None
    gradient: bool = False
    replayable: bool = True
    features: bool = False
    dropout: bool = False
    steps: int | None = None
    batch: Stream = Stream()
    streams: Mapping[str, Stream] = field(default_factory=dict)
    dev_after_last_step: bool = True
    two_level: bool = False
    any_length: bool = False

    def __post_init__(self) -> None:
        if "" in self.streams:
            raise bad_value("streams", "", "a name; the steps' own batches are ``batch``")

    @property
    def updates_by_gradient(self) -> bool:
        """Whether gradients enter the update as tensors, which several processes must share."""
        return self.gradient and not self.replayable

    @property
    def asks_once(self) -> bool:
        """Whether a step changes nothing before it has the only gradient that it asks for."""
        return self.directions is None and not self.streams


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a step and should be logged, whatever ``log_every`` is.

    Args:
        name: what happened, such as ``reallocation``.
        values: numbers and texts that describe it.
    """

    name: str
    values: Mapping[str, float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if taken := {"step", "event"} & set(self.values):
            raise bad_value("values", sorted(taken), "other names: an event has these already")


@dataclass(frozen=True, slots=True)
class Report:
    """What a step found and what it cost.

    Args:
        loss: a loss at or near the weights.
        forwards: forward passes over the step's own batch. Passes over the batches of named
            streams are counted by the run.
        backwards: backward passes over the step's own batch.
        scalars: numbers to log every ``log_every`` steps.
        events: what to log now.
    """

    loss: float
    forwards: int
    backwards: int = 0
    scalars: Mapping[str, float] = field(default_factory=dict)
    events: Sequence[Event] = ()


class Optimizer(Protocol):
    """A method. Its constructor takes (engine, draws, *, options) and checks their ranges.

    ``needs`` may depend on the options; it does not change after construction.
    """

    needs: Needs
    lr: float

    def step(self, score: Score) -> Report:
        """Make one step: ask ``score`` for losses, then move the weights."""
        ...


@runtime_checkable
class HasViews(Protocol):
    """An optimizer whose weights can be evaluated in several ways, such as with p and with s.

    Attributes:
        views: the names of all ways; dev is evaluated in each of them.
        tested: the names of those of which the best one on dev is tested.
    """

    views: Sequence[str]
    tested: Sequence[str]

    def view(self, name: str) -> None:
        """Put the weights into one of the ways, until the next call."""
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
