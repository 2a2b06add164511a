"""The training loop's inputs, its callback interfaces, and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from lozo_bench.config.schema import Schedule, Select
from lozo_bench.data.sets import Data
from lozo_bench.engine.protocol import Engine
from lozo_bench.evaluation.evaluate import Evaluator, Metrics
from lozo_bench.objectives.losses import Objective
from lozo_bench.optimizers.base import Event, Optimizer
from lozo_bench.training.costs import Spent
from lozo_bench.training.rows import TrainingRows

StepDropout = Callable[[int, int], AbstractContextManager[None]]


def no_dropout(step: int, micro_batch: int) -> AbstractContextManager[None]:
    """Leave the model in evaluation mode."""
    return nullcontext()


class Observer(Protocol):
    """Receives the progress of a run: the files, wandb and the terminal."""

    def stepped(self, row: Mapping[str, float]) -> None:
        """Receive a row of training numbers; every ``log_every`` steps and after the last."""

    def advanced(self, step: int, loss: float) -> None:
        """Receive the loss of a step; after every step."""

    def skipped(self, step: int, why: str) -> None:
        """Receive the reason why a step was skipped: a loss was not finite."""

    def happened(self, step: int, event: Event) -> None:
        """Receive an event of a step, as soon as the step is done."""

    def doubted(self, why: str) -> None:
        """Receive a warning about the whole run."""

    def evaluating(self, name: str, done: int, of: int) -> None:
        """Receive how many examples of a set are evaluated so far."""

    def evaluated(self, step: int, name: str, metrics: Metrics, costs: Mapping[str, float]) -> None:
        """Receive the metrics of a set, ``zero_shot``, ``dev`` or ``test``, and what was spent."""

    def recalled(self, name: str, metrics: Metrics) -> None:
        """Receive the metrics of a set that an earlier attempt evaluated."""


class SilentObserver:
    """An observer that does nothing, for all processes of a run except the first."""

    def stepped(self, row: Mapping[str, float]) -> None:
        """Do nothing."""

    def advanced(self, step: int, loss: float) -> None:
        """Do nothing."""

    def skipped(self, step: int, why: str) -> None:
        """Do nothing."""

    def happened(self, step: int, event: Event) -> None:
        """Do nothing."""

    def doubted(self, why: str) -> None:
        """Do nothing."""

    def evaluating(self, name: str, done: int, of: int) -> None:
        """Do nothing."""

    def evaluated(self, step: int, name: str, metrics: Metrics, costs: Mapping[str, float]) -> None:
        """Do nothing."""

    def recalled(self, name: str, metrics: Metrics) -> None:
        """Do nothing."""


class RunHistory(Protocol):
    """A run's saved progress: what earlier attempts did, and where this one is recorded.

    ``known`` is the last step whose losses were recorded in earlier attempts; 0 without one.
    """

    known: int

    def losses(self, step: int) -> Sequence[Tensor]:
        """Return the losses that the optimizer got in a step up to ``known``, in order."""
        ...

    def evaluation(self, step: int, name: str) -> Mapping[str, float] | None:
        """Return the metrics of an earlier evaluation, or None if there was none."""
        ...

    def spent(self) -> Mapping[str, float]:
        """Return what the steps up to ``known`` had cost, as it was given to `step_made`."""
        ...

    def state(self) -> tuple[int, Mapping[str, Tensor], Mapping[str, Any]] | None:
        """Return the full state to continue from: its step, tensors and metadata."""
        ...

    def evaluated(self, step: int, name: str, values: Mapping[str, float]) -> None:
        """Record an evaluation."""
        ...

    def step_made(self, step: int, losses: Sequence[Tensor], spent: Mapping[str, float]) -> None:
        """Record a step."""
        ...

    def wants_state(self, step: int) -> bool:
        """Return whether a full state should be saved after this step."""
        ...

    def wants_last_state(self, step: int) -> bool:
        """Return whether one should be saved if the run stops right after this step."""
        ...

    def save_state(
        self, step: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
    ) -> None:
        """Save a full state."""
        ...

    def flush(self) -> None:
        """Write everything that was recorded to disk."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """How long and how to train; the fields are those of `lozo_bench.config.schema.Config`.

    With 0 steps nothing is trained or chosen, and only the test set is evaluated.
    """

    steps: int
    eval_batch_size: int
    eval_every: int
    log_every: int
    schedule: Schedule
    select: Select
    max_bad_steps: int
    micro_batch_size: int | None = None
    patience: int | None = None
    max_queries: int | None = None
    max_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Components:
    """What the training loop puts together.

    Args:
        engine: holds the weights that move.
        optimizer: moves them; None: the run only evaluates.
        objective: what is minimized on a batch.
        evaluators: how each set is evaluated: ``zero_shot``, ``dev`` and ``test``.
        data: the three sets.
        rows: which training rows each batch consists of.
        settings: how long and how to train.
        device: where the model runs.
        dropout: the context that a micro-batch of a step is differentiated in.
        smooth: whether the objective is a loss, which has slopes, and not a metric.
    """

    engine: Engine
    optimizer: Optimizer | None
    objective: Objective
    evaluators: Mapping[str, Evaluator]
    data: Data
    rows: TrainingRows
    settings: Settings
    device: torch.device
    dropout: StepDropout = no_dropout
    smooth: bool = True


@dataclass(slots=True)
class Outcome:
    """The result of a run.

    Of 0 steps, ``zero_shot`` and ``dev`` are None. ``step_ms_median`` is over the steps of the
    last attempt, None if it made none. ``weights`` are fingerprints of the state after the last
    step and of the tested one: they are equal only if all bits are. ``steps`` is the last step,
    which is an earlier one than planned if the run was ``stopped_by`` the setting that is named.
    """

    zero_shot: Metrics | None
    dev: Metrics | None
    test: Metrics
    best_step: int
    steps: int
    spent: Spent
    step_ms_median: float | None
    elapsed_s: float
    weights: dict[str, str]
    stopped_by: str = ""
