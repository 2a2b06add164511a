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

from lozo_bench.batches import Batch, collate, shuffled
from lozo_bench.config import Schedule, Select
from lozo_bench.engine.in_place import InPlaceScore, NonFiniteLossError
from lozo_bench.errors import UserError
from lozo_bench.evaluation.evaluate import Metrics, evaluate
from lozo_bench.objectives.options import Scorer, cross_entropy
from lozo_bench.optimizers.base import Optimizer, Report
from lozo_bench.tasks.base import Encoded


class Observer(Protocol):
    """Whoever wants to be told how a run goes: files, wandb, the terminal."""

    def stepped(self, row: Mapping[str, float]) -> None:
        """A row of training numbers; called every ``log_every`` steps and after the last."""

    def advanced(self, step: int, loss: float) -> None:
        """A step was made; called after every step."""

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


@dataclass(frozen=True, slots=True)
class Data:
    """The three sets, as tokens, and the id that pads them."""

    train: Sequence[Encoded]
    dev: Sequence[Encoded]
    test: Sequence[Encoded]
    pad_id: int


@dataclass(slots=True)
class Outcome:
    """What a run came to. Passes and tokens are those of training, without the evaluations."""

    zero_shot: Metrics
    dev: Metrics
    test: Metrics
    best_step: int
    forwards: int
    backwards: int
    tokens: int
    step_ms_median: float


@dataclass(slots=True)
class _Best:
    """The step to be tested, and its weights on the CPU."""

    step: int
    dev: Metrics
    weights: dict[str, Tensor]


@dataclass(slots=True)
class _Spent:
    forwards: int = 0
    backwards: int = 0
    examples: int = 0
    tokens: int = 0
    seconds: list[float] = field(default_factory=list)


class Trainer:
    """One run.

    Args:
        X: the weights that move, by name.
        scorer: scores of the options of a batch; reads the weights X.
        optimizer: moves X.
        device: where batches go.
    """

    def __init__(
        self,
        X: Mapping[str, Tensor],
        scorer: Scorer,
        optimizer: Optimizer,
        data: Data,
        settings: Settings,
        observer: Observer,
        device: torch.device,
    ) -> None:
        self.X, self.scorer, self.optimizer = X, scorer, optimizer
        self.data, self.settings, self.observer, self.device = data, settings, observer, device
        self.spent = _Spent()
        self.best: _Best | None = None

    def run(self) -> Outcome:
        """Zero-shot, training with evaluations, and the test of the chosen step.

        Raises:
            UserError: a loss was not finite; the weights are those of the step before.
        """
        self.began = time.perf_counter()
        zero_shot = self._evaluate(0, "zero_shot", self.data.test)
        self._train()
        assert self.best is not None
        self._restore(self.best)
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
            step_ms_median=1000 * median(spent.seconds),
        )

    def _train(self) -> None:
        settings, lr = self.settings, self.optimizer.lr
        for step, batch in enumerate(self._batches(), start=1):
            self.optimizer.lr = lr * schedule_factor(settings.schedule, step, settings.steps)
            report = self._step(step, batch)
            self.observer.advanced(step, report.loss)
            if step % settings.log_every == 0 or step == settings.steps:
                self.observer.stepped(self._row(step, report))
            if step % settings.eval_every == 0 or step == settings.steps:
                self._consider(step)
            if step == settings.steps:
                return

    def _batches(self) -> Iterator[Batch]:
        settings, train = self.settings, self.data.train
        for numbers in shuffled(len(train), settings.batch_size, settings.seed):
            yield collate([train[i] for i in numbers], self.data.pad_id).to(self.device)

    def _step(self, step: int, batch: Batch) -> Report:
        began = time.perf_counter()
        score = InPlaceScore(self.X, lambda: cross_entropy(self.scorer(batch), batch.labels))
        try:
            report = self.optimizer.step(score)
        except NonFiniteLossError as error:
            raise _not_finite(step, str(error)) from error
        _synchronize(self.device)
        spent = self.spent
        spent.seconds.append(time.perf_counter() - began)
        spent.forwards += report.forwards
        spent.backwards += report.backwards
        spent.examples += len(batch.labels)
        spent.tokens += batch.tokens * report.forwards
        return report

    def _row(self, step: int, report: Report) -> dict[str, float]:
        return {
            "step": step,
            "loss": report.loss,
            **report.scalars,
            "lr": self.optimizer.lr,
            "forward_passes": self.spent.forwards,
            "examples": self.spent.examples,
            "elapsed_s": round(time.perf_counter() - self.began, 3),
        }

    def _consider(self, step: int) -> None:
        """Evaluate on dev and keep this step if it is the one to test so far."""
        dev = self._evaluate(step, "dev", self.data.dev)
        if self.best is None or is_better(dev, self.best.dev, self.settings.select):
            # Copied, not referenced: training goes on in place.
            weights = {name: x.detach().to("cpu", copy=True) for name, x in self.X.items()}
            self.best = _Best(step, dev, weights)

    @torch.no_grad()
    def _restore(self, best: _Best) -> None:
        for name, x in self.X.items():
            x.copy_(best.weights[name])

    def _evaluate(self, step: int, name: str, examples: Sequence[Encoded]) -> Metrics:
        metrics = evaluate(
            self.scorer,
            examples,
            self.settings.eval_batch_size,
            self.data.pad_id,
            self.device,
        )
        if not math.isfinite(metrics.loss):
            raise _not_finite(step, f"the {name} loss is {metrics.loss}")
        self.observer.evaluated(step, name, metrics, self.spent.forwards)
        return metrics


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
