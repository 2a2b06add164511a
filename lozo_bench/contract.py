"""What the loop is given, whom it tells how it goes, and what it comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lozo_bench.batches import Layout
from lozo_bench.config import Schedule, Select
from lozo_bench.evaluation.evaluate import Metrics
from lozo_bench.tasks.base import Encoded


class Observer(Protocol):
    """Whoever wants to be told how a run goes: files, wandb, the terminal."""

    def stepped(self, row: Mapping[str, float]) -> None:
        """A row of training numbers; called every ``log_every`` steps and after the last."""

    def advanced(self, step: int, loss: float) -> None:
        """A step was made; called after every step."""

    def skipped(self, step: int, why: str) -> None:
        """A step was not made, because a loss was not finite."""

    def evaluating(self, name: str, done: int, of: int) -> None:
        """A set is being evaluated: so many of its examples are done."""

    def evaluated(self, step: int, name: str, metrics: Metrics, forward_passes: int) -> None:
        """A set was evaluated: ``zero_shot``, ``dev`` or ``test``, after so many passes."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How long and how to train; the fields are those of `lozo_bench.config.Config`.

    With 0 steps there is nothing to choose, and only the test set is looked at.
    """

    steps: int
    batch_size: int
    eval_batch_size: int
    eval_every: int
    log_every: int
    schedule: Schedule
    select: Select
    seed: int
    max_bad_steps: int
    micro_batch_size: int | None = None


@dataclass(frozen=True, slots=True)
class Data:
    """The three sets, as tokens, and how they become batches.

    ``by_tokens``: a batch's loss is the mean over its answers' tokens, not over its examples.
    """

    train: Sequence[Encoded]
    dev: Sequence[Encoded]
    test: Sequence[Encoded]
    layout: Layout
    by_tokens: bool = False


@dataclass(slots=True)
class Spent:
    """What the steps so far cost, whichever process made them; evaluations are not among it.

    ``queries`` are examples times forward passes; ``tokens`` those that went through the model, and
    ``backward_tokens`` those that went back. ``bad_steps`` did not happen, because a loss was not
    finite. ``sittings`` is in how many goes the run was made. ``train_s`` are the seconds of the
    steps, ``elapsed_s`` those of everything.
    """

    forwards: int = 0
    backwards: int = 0
    examples: int = 0
    queries: int = 0
    tokens: int = 0
    backward_tokens: int = 0
    bad_steps: int = 0
    bad_in_a_row: int = 0
    sittings: int = 1
    train_s: float = 0.0
    elapsed_s: float = 0.0


@dataclass(slots=True)
class Outcome:
    """What a run came to.

    Of 0 steps, ``zero_shot`` and ``dev`` are None. ``step_ms_median`` is of the last sitting, None
    if nothing was left to train in it. ``weights`` are fingerprints of the state after the last
    step and of the tested one: equal for equal bits.
    """

    zero_shot: Metrics | None
    dev: Metrics | None
    test: Metrics
    best_step: int
    spent: Spent
    step_ms_median: float | None
    elapsed_s: float
    weights: dict[str, str]
