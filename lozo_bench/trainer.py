"""The loop: batches in, steps of whatever optimizer, evaluations, and the choice of a step.

It knows neither which optimizer nor which task it holds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Protocol

import torch
from torch import Tensor

from lozo_bench.batches import Batch, Layout, parts, shuffled
from lozo_bench.config import Schedule, Select
from lozo_bench.engine.score import Engine, NonFiniteLossError, Score
from lozo_bench.errors import UserError
from lozo_bench.evaluation.evaluate import Metrics, evaluate
from lozo_bench.objectives.options import Scorer, scored
from lozo_bench.optimizers.base import Optimizer, Report
from lozo_bench.tasks.base import Encoded


class Observer(Protocol):
    """Whoever wants to be told how a run goes: files, wandb, the terminal."""

    def stepped(self, row: Mapping[str, float]) -> None:
        """A row of training numbers; called every ``log_every`` steps and after the last."""

    def advanced(self, step: int, loss: float) -> None:
        """A step was made; called after every step."""

    def skipped(self, step: int, why: str) -> None:
        """A step was not made, because a loss was not finite."""

    def evaluated(self, step: int, name: str, metrics: Metrics, forward_passes: int) -> None:
        """A set was evaluated: ``zero_shot``, ``dev`` or ``test``, after so many passes."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How long and how to train; the fields are those of `lozo_bench.config.Config`."""

    steps: int
    batch_size: int
    eval_batch_size: int
    eval_every: int
    log_every: int
    schedule: Schedule
    select: Select
    seed: int
    max_bad_steps: int


@dataclass(frozen=True, slots=True)
class Data:
    """The three sets, as tokens, and how they become batches."""

    train: Sequence[Encoded]
    dev: Sequence[Encoded]
    test: Sequence[Encoded]
    layout: Layout


@dataclass(slots=True)
class Outcome:
    """What a run came to. Passes and tokens are those of training, without the evaluations.

    ``bad_steps`` counts the steps that did not happen because a loss was not finite.
    """

    zero_shot: Metrics
    dev: Metrics
    test: Metrics
    best_step: int
    forwards: int
    backwards: int
    tokens: int
    bad_steps: int
    step_ms_median: float


@dataclass(slots=True)
class _Best:
    """The step to be tested, and the engine's state there."""

    step: int
    dev: Metrics
    state: dict[str, Tensor]


@dataclass(slots=True)
class _Spent:
    forwards: int = 0
    backwards: int = 0
    examples: int = 0
    tokens: int = 0
    bad_steps: int = 0
    bad_in_a_row: int = 0
    seconds: list[float] = field(default_factory=list)


class Trainer:
    """One run.

    Args:
        engine: holds the weights that move.
        scorer: scores of the options of a batch, by the model as it is.
        optimizer: moves the weights.
        device: where batches go.
    """

    def __init__(
        self,
        engine: Engine,
        scorer: Scorer,
        optimizer: Optimizer,
        data: Data,
        settings: Settings,
        observer: Observer,
        device: torch.device,
    ) -> None:
        self.engine, self.scorer, self.optimizer = engine, scorer, optimizer
        self.data, self.settings, self.observer, self.device = data, settings, observer, device
        self.spent = _Spent()
        self.best: _Best | None = None

    def run(self) -> Outcome:
        """Zero-shot, training with evaluations, and the test of the chosen step.

        Raises:
            UserError: too many losses were not finite; the weights are those of the last good step.
        """
        self.began = time.perf_counter()
        zero_shot = self._evaluate(0, "zero_shot", self.data.test)
        self._train()
        assert self.best is not None
        self.engine.load_state(self.best.state)
        test = self._evaluate(self.best.step, "test", self.data.test)
        spent = self.spent
        return Outcome(
            zero_shot=zero_shot,
            dev=self.best.dev,
            test=test,
            best_step=self.best.step,
            forwards=spent.forwards,
            backwards=spent.backwards,
            tokens=spent.tokens,
            bad_steps=spent.bad_steps,
            step_ms_median=1000 * median(spent.seconds) if spent.seconds else math.nan,
        )

    def _train(self) -> None:
        settings, lr = self.settings, self.optimizer.lr
        train_batches = batches(self.data, settings, self.device)
        for step, batch in enumerate(train_batches, start=1):
            self.optimizer.lr = lr * schedule_factor(settings.schedule, step, settings.steps)
            report = self._step(step, batch)
            if report is not None:
                self.observer.advanced(step, report.loss)
                if step % settings.log_every == 0 or step == settings.steps:
                    self.observer.stepped(self._row(step, report))
            if step % settings.eval_every == 0 or step == settings.steps:
                self._consider(step)
            if step == settings.steps:
                return

    def _step(self, step: int, batch: Sequence[Batch]) -> Report | None:
        """One step; None if a loss was not finite, and nothing was changed."""
        began = time.perf_counter()
        score = Score(self.engine, [scored(self.scorer, part) for part in batch])
        spent = self.spent
        try:
            report = self.optimizer.step(score)
        except NonFiniteLossError as error:
            self._bad_step(step, error)
            return None
        _synchronize(self.device)
        spent.bad_in_a_row = 0
        spent.seconds.append(time.perf_counter() - began)
        spent.forwards += report.forwards
        spent.backwards += report.backwards
        spent.examples += score.examples
        spent.tokens += sum(part.tokens for part in batch) * report.forwards
        return report

    def _bad_step(self, step: int, error: NonFiniteLossError) -> None:
        """Count and report a step that did not happen; end the run when there are too many."""
        spent, limit = self.spent, self.settings.max_bad_steps
        spent.bad_steps += 1
        spent.bad_in_a_row += 1
        if spent.bad_in_a_row > limit:
            many = f", and so it was for {spent.bad_in_a_row} steps in a row" if limit else ""
            raise _not_finite(step, f"{error}{many}")
        self.observer.skipped(step, str(error))

    def _row(self, step: int, report: Report) -> dict[str, float]:
        return {
            "step": step,
            "loss": report.loss,
            **report.scalars,
            "lr": self.optimizer.lr,
            "forward_passes": self.spent.forwards,
            "examples": self.spent.examples,
            "bad_steps": self.spent.bad_steps,
            "elapsed_s": round(time.perf_counter() - self.began, 3),
        }

    def _consider(self, step: int) -> None:
        """Evaluate on dev and keep this step if it is the one to test so far."""
        dev = self._evaluate(step, "dev", self.data.dev)
        if self.best is None or is_better(dev, self.best.dev, self.settings.select):
            self.best = _Best(step, dev, self.engine.state())

    def _evaluate(self, step: int, name: str, examples: Sequence[Encoded]) -> Metrics:
        with self.engine.weights():
            metrics = evaluate(
                self.scorer,
                examples,
                self.settings.eval_batch_size,
                self.data.layout,
                self.device,
            )
        if not math.isfinite(metrics.loss):
            raise _not_finite(step, f"the {name} loss is {metrics.loss}")
        self.observer.evaluated(step, name, metrics, self.spent.forwards)
        return metrics


def batches(data: Data, settings: Settings, device: torch.device) -> Iterator[list[Batch]]:
    """The training batches of a run, endlessly, each in the parts that go through the model."""
    for numbers in shuffled(len(data.train), settings.batch_size, settings.seed):
        examples = [data.train[i] for i in numbers]
        yield [part.to(device) for part in parts(examples, data.layout)]


def schedule_factor(schedule: Schedule, step: int, steps: int) -> float:
    """Share of the learning rate used at ``step`` (1-based): all of it, or falling to 1/steps."""
    if schedule is Schedule.constant:
        return 1.0
    return (steps - step + 1) / steps


def is_better(new: Metrics, best: Metrics, select: Select) -> bool:
    """Whether ``new`` replaces ``best``: strictly better, so that the first of equals stays."""
    if select is Select.dev_metric:
        return new.accuracy > best.accuracy
    if select is Select.dev_loss:
        return new.loss < best.loss
    return True


def _not_finite(step: int, what: str) -> UserError:
    return UserError(
        f"step {step}: {what}; the run stops here and its result is not written. "
        "A smaller optimizer.lr or optimizer.eps, or model.dtype=fp32, usually helps"
    )


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
