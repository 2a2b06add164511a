"""The training loop: steps of an optimizer, evaluations, and the choice of the step to test.

The loop knows neither which optimizer nor which task it runs. A run that was interrupted goes
through the same loop again: steps and evaluations that are in its history are not computed again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from lozo_bench.config.schema import Select
from lozo_bench.engine.finite import NonFiniteLossError
from lozo_bench.engine.protocol import ScoredBatch
from lozo_bench.engine.score import Score
from lozo_bench.engine.sharing import ALONE, Sharing
from lozo_bench.errors import UserError
from lozo_bench.evaluation.evaluate import Metrics, evaluate
from lozo_bench.optimizers.base import Event, HasViews, Optimizer, Report
from lozo_bench.tasks.base import Encoded
from lozo_bench.training.batcher import Batcher, StreamBatches
from lozo_bench.training.budget import Budget
from lozo_bench.training.costs import Costs, failed_candidates
from lozo_bench.training.doubts import doubts, not_moving
from lozo_bench.training.full_states import FullStates
from lozo_bench.training.interfaces import Components, Observer, Outcome, RunHistory
from lozo_bench.training.resolution import ResolutionCheck
from lozo_bench.training.selection import BestStep, schedule_factor
from lozo_bench.training.views import evaluate_views, show_best


class Trainer:
    """One run.

    Args:
        parts: what it is made of.
        history: what earlier attempts did, and where this one is recorded.
        observer: receives its progress.
        sharing: divides the work among processes.
        check: called again and again; raises Stopped to stop the run.
        scratch: a folder for the weights of the best step; None: they are kept in memory.
    """

    def __init__(
        self,
        parts: Components,
        *,
        history: RunHistory,
        observer: Observer,
        sharing: Sharing = ALONE,
        check: Callable[[], None] = lambda: None,
        scratch: Path | None = None,
    ) -> None:
        self.parts, self.history, self.observer = parts, history, observer
        self.engine, self.settings, self.data = parts.engine, parts.settings, parts.data
        self.sharing, self.check = sharing, check
        micro_batch_size = parts.settings.micro_batch_size
        self.batcher = Batcher(parts.data, parts.objective, micro_batch_size, sharing)
        self.streams = StreamBatches(parts.rows)
        self.lr = parts.optimizer.lr if parts.optimizer else 0.0
        self.costs = Costs()
        watched = parts.optimizer if parts.smooth else None
        self.resolution = ResolutionCheck(watched, parts.engine, parts.settings.steps, scratch)
        self.best = BestStep(parts.engine, parts.settings.select, scratch)
        self.budget = Budget(parts.settings.max_queries, parts.settings.max_seconds)
        self.last_step = parts.settings.steps  # an earlier one if the run is ``stopped_by`` a limit
        self.stopped_by = ""
        self.dev: list[Metrics] = []

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer of a run that makes steps."""
        assert self.parts.optimizer is not None, "a run without an optimizer makes no steps"
        return self.parts.optimizer

    # The run: zero-shot evaluation, training with evaluations on dev, test of the chosen step.

    def run(self) -> Outcome:
        """Train, and evaluate the chosen step on the test set.

        Raises:
            UserError: too many losses were not finite; the weights are those of the last good step.
            Stopped: the run was asked to stop. What it did is recorded and can be continued.
        """
        try:
            zero_shot = None
            if self.settings.steps:
                zero_shot = self._evaluate(0, "zero_shot", self.data.test)
                self.advance(self.settings.steps)
            last, tested = self.best.load(self.settings.steps)
            best = self.best.found
            best_step = 0 if best is None else best.step
            test = self._evaluate(best_step, "test", self.data.test)
            if zero_shot is not None:
                dtype = self._coarsest_dtype
                self._report(doubts(zero_shot, test, self.dev, self.last_step, self.lr, dtype))
        finally:
            self.history.flush()
        return Outcome(
            zero_shot=zero_shot,
            dev=None if best is None else best.dev,
            test=test,
            best_step=best_step,
            steps=self.last_step,
            spent=self.costs.spent,
            step_ms_median=self.costs.step_ms_median(),
            elapsed_s=self.costs.elapsed(),
            weights={"last": last, "tested": tested},
            stopped_by=self.stopped_by,
        )

    def advance(self, to: int) -> None:
        """Train up to a step, from the state in the history or from the beginning."""
        if self.parts.optimizer is None:  # the run makes no steps
            return
        states = FullStates(self.engine, self.optimizer, self.streams, self.best, self.history)
        start = states.load()
        known = self.history.known
        if known == 0 or start == known:
            self.costs.continue_from(self.history.spent())
        for step, numbers in enumerate(self.parts.rows.batches(), start=1):
            if step > to:
                return
            if step < start:
                continue
            if step > start:
                with states.saved_if_stopped(step - 1):
                    self._set_learning_rate(step)
                    make_step = self._replay_step if step <= known else self._make_step
                    make_step(step, numbers)
            if step == known > start:
                self.costs.continue_from(self.history.spent())
            limit = self.budget.reached(self.costs.spent) if step >= known else ""
            if limit or self._evaluates_dev_after(step):
                # A state saved in here is `start` of the next attempt, which evaluates it first.
                with states.saved_if_stopped(step):
                    self._evaluate_dev(step)
            limit = limit or self._patience_ends_after(step)
            if step > known:
                states.save_if_due(step, is_last=bool(limit) or self._is_last(step))
            if limit:
                self.last_step, self.stopped_by = step, limit
                return

    # One step.

    def _set_learning_rate(self, step: int) -> None:
        factor = schedule_factor(self.settings.schedule, step, self.settings.steps)
        self.optimizer.lr = self.lr * factor

    def _replay_step(self, step: int, numbers: Sequence[int]) -> None:
        """Make a step of an earlier attempt again, from its recorded losses."""
        if self.sharing is ALONE:  # with several processes, one would leave the others waiting
            self.check()
        score = Score(
            self.engine,
            [],
            examples=len(numbers),
            sharing=self.sharing,
            recorded=self.history.losses(step),
            streams=lambda name: ScoredBatch(examples=len(self.streams.next(name))),
        )
        try:
            report = self.optimizer.step(score)
        except NonFiniteLossError:
            return
        self.observer.advanced(step, report.loss)

    def _make_step(self, step: int, numbers: Sequence[int]) -> None:
        """Make a step, unless a loss is not finite: then the weights stay as they are."""
        batch = self.batcher.batch(numbers)
        began = time.perf_counter()
        score = Score(
            self.engine,
            batch.parts,
            order=batch.order,
            sharing=self.sharing,
            examples=batch.examples,
            check=self._check_in_step(),
            dropout=partial(self.parts.dropout, step),
            streams=lambda name: self.batcher.batch(self.streams.next(name)),
            tokens=batch.tokens,
        )
        try:
            report = self.optimizer.step(score)
        except NonFiniteLossError as error:
            self._skip_step(step, error)
            self.history.step_made(step, score.answers, self.costs.for_history())
            return
        if not math.isfinite(report.loss):
            raise UserError(
                f"optimizer: step {step} reports the loss {report.loss}; report a finite one, such "
                "as that of the best candidate"
            )
        _synchronize(self.parts.device)
        self.costs.add_step(score, report, time.perf_counter() - began)
        self._report(self.resolution.after(score))
        self.observer.advanced(step, report.loss)
        for event in (*report.events, *_failures(score)):
            self.observer.happened(step, event)
        if self._is_last(step) or step % self.settings.log_every == 0:
            self.observer.stepped(self._row(step, report))
        self.history.step_made(step, score.answers, self.costs.for_history())

    def _check_in_step(self) -> Callable[[], None]:
        """Return the check for a stop during a step.

        A step that cannot be made again from its losses, and asks for more than one thing, may
        change something in between. It is stopped only before its first pass, so that the state
        that is saved is the one before the step.
        """
        if self.optimizer.needs.replayable or self.optimizer.needs.asks_once:
            return self.check
        checks = iter([self.check])
        return lambda: next(checks, _no_check)()

    def _skip_step(self, step: int, error: NonFiniteLossError) -> None:
        """Count and report a skipped step; end the run if there are too many in a row."""
        self.costs.add_skipped_step()
        in_a_row, limit = self.costs.spent.bad_in_a_row, self.settings.max_bad_steps
        if in_a_row > limit:
            many = f", and so it was for {in_a_row} steps in a row" if limit else ""
            raise _not_finite(step, f"{error}{many}", self.lr)
        self.observer.skipped(step, str(error))

    def _row(self, step: int, report: Report) -> dict[str, float]:
        return {
            "step": step,
            "loss": report.loss,
            **report.scalars,
            "lr": self.optimizer.lr,
            **self.costs.for_curves(),
            "examples": self.costs.spent.examples,
            "bad_steps": self.costs.spent.bad_steps,
        }

    # Evaluations.

    def _evaluates_dev_after(self, step: int) -> bool:
        settings = self.settings
        if step % settings.eval_every == 0 or not self._is_last(step):
            return step % settings.eval_every == 0
        return (
            self.optimizer.needs.dev_after_last_step
            or settings.steps < settings.eval_every
            or settings.select is Select.last
        )

    def _patience_ends_after(self, step: int) -> str:
        """Return the setting if dev has not become better for so many evaluations."""
        patience, every = self.settings.patience, self.settings.eval_every
        best = self.best.found
        if patience is None or best is None or step % every:
            return ""
        return f"patience={patience}" if step - best.step >= patience * every else ""

    def _evaluate_dev(self, step: int) -> None:
        """Evaluate on dev, and remember this step if it is the best so far."""
        views = self.optimizer if isinstance(self.optimizer, HasViews) else None
        dev = self._evaluate(step, "dev", self.data.dev, views)
        if views is not None:
            show_best(views, dev, self.settings.select)
        self.dev.append(dev)
        self.best.offer(step, dev)
        if step > self.history.known:
            self._report(
                not_moving(self.dev, step, self.settings.steps, self.lr, self._coarsest_dtype)
            )

    def _report(self, doubt: str | None) -> None:
        if doubt is not None:
            self.observer.doubted(doubt)

    @property
    def _coarsest_dtype(self) -> torch.dtype:
        dtypes = {x.dtype for x in self.engine.X.values()} or {torch.float32}
        return max(dtypes, key=lambda each: torch.finfo(each).eps)

    def _evaluate(
        self, step: int, name: str, examples: Sequence[Encoded], views: HasViews | None = None
    ) -> Metrics:
        before = self.history.evaluation(step, name)
        if before is not None:
            metrics = Metrics(before)
            self.observer.recalled(name, metrics)
            return metrics
        measure = partial(self._measure, name, examples)
        metrics = (
            measure() if views is None else evaluate_views(views, measure, self.settings.select)
        )
        if not math.isfinite(metrics.loss):
            raise _not_finite(step, f"the {name} loss is {metrics.loss}", self.lr)
        self.observer.evaluated(step, name, metrics, self.costs.for_curves())
        self.history.evaluated(step, name, metrics.values)
        return metrics

    def _measure(self, name: str, examples: Sequence[Encoded]) -> Metrics:
        with self.engine.applied():
            return evaluate(
                self.parts.evaluators[name],
                examples,
                self.settings.eval_batch_size,
                self.sharing,
                self.check,
                lambda done, of: self.observer.evaluating(name, done, of),
            )

    def _is_last(self, step: int) -> bool:
        return step == self.settings.steps


def _failures(score: Score) -> list[Event]:
    """Return the event that some candidates had a loss that is not finite, if any had."""
    failed = failed_candidates(score)
    return [Event("bad_candidates", {"candidates": failed})] if failed else []


def _no_check() -> None:
    """Do not stop here."""


def _not_finite(step: int, what: str, lr: float) -> UserError:
    smaller = (
        "a smaller optimizer.lr; an optimizer.eps near the method's default, if it was changed"
        if lr
        else "a smaller optimizer.alpha, if the method has one"  # it searches, or only evaluates
    )
    return UserError(
        f"step {step}: {what}; the run stops here and its result is not written. "
        f"What to do: {smaller}; or model.dtype=fp32"
    )


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
