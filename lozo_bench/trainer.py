"""The loop: batches in, steps of whatever optimizer, evaluations, and the choice of a step.

It knows neither which optimizer nor which task it holds. A run that was interrupted goes through
the same loop again: what it remembers of its steps and evaluations is not computed a second time,
and not told a second time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, fields
from functools import partial
from statistics import median
from typing import Any

import torch

from lozo_bench.batches import grouped, shuffled, token_shares
from lozo_bench.contract import Data, Observer, Outcome, Settings, Spent
from lozo_bench.engine.score import Engine, NonFiniteLossError, Part, Score
from lozo_bench.engine.sharing import ALONE, Sharing
from lozo_bench.engine.tensors import fingerprint
from lozo_bench.engine.terms import under
from lozo_bench.errors import UserError
from lozo_bench.evaluation.evaluate import Judge, Metrics, evaluate
from lozo_bench.memory import Memory
from lozo_bench.objectives.losses import Objective
from lozo_bench.optimizers.base import Optimizer, Report
from lozo_bench.optimizers.state import load_optimizer_state, optimizer_state
from lozo_bench.selection import Best, is_better, schedule_factor
from lozo_bench.stop import Stopped
from lozo_bench.tasks.base import Encoded

StepNoise = Callable[[int, int], AbstractContextManager[None]]


def no_noise(step: int, part: int) -> AbstractContextManager[None]:
    """Passes of one step are as those of another."""
    return nullcontext()


class Trainer:
    """One run.

    Args:
        engine: holds the weights that move.
        objective: what is lowered on a batch.
        judges: what a set is judged by: ``zero_shot``, ``dev`` and ``test``.
        optimizer: moves the weights.
        data: what it is trained, chosen and tested on.
        settings: how long and how.
        observer: is told how it goes.
        device: where the model runs.
        memory: what was done before, and where it is taken down now.
        sharing: how the work is dealt among processes.
        check: called again and again; raises Stopped when the run shall stop.
        noise: what each part of a step's batch is differentiated in.
    """

    def __init__(
        self,
        engine: Engine,
        objective: Objective,
        judges: Mapping[str, Judge],
        optimizer: Optimizer,
        data: Data,
        settings: Settings,
        observer: Observer,
        device: torch.device,
        memory: Memory,
        sharing: Sharing = ALONE,
        check: Callable[[], None] = lambda: None,
        noise: StepNoise = no_noise,
    ) -> None:
        self.engine, self.objective, self.judges = engine, objective, judges
        self.optimizer = optimizer
        self.data, self.settings, self.observer, self.device = data, settings, observer, device
        self.memory, self.sharing, self.check, self.noise = memory, sharing, check, noise
        self.lr = optimizer.lr
        self.spent = Spent()
        self.best: Best | None = None
        self.step_seconds: list[float] = []
        self.elapsed_before = 0.0
        self.began = time.perf_counter()

    def run(self) -> Outcome:
        """Zero-shot, training with evaluations, and the test of the chosen step.

        Raises:
            UserError: too many losses were not finite; the weights are those of the last good step.
            Stopped: the run shall stop. What it did is taken down, so that it can be gone on with.
        """
        self.began = time.perf_counter()
        try:
            zero_shot = None
            if self.settings.steps:
                zero_shot = self._evaluate(0, "zero_shot", self.data.test)
                self.advance(self.settings.steps)
            last = fingerprint(self.engine.tensors())
            tested = last
            if self.best is not None:
                tested = fingerprint(self.best.state)
                self.engine.load_state(self.best.state)
            best_step = 0 if self.best is None else self.best.step
            test = self._evaluate(best_step, "test", self.data.test)
        finally:
            self.memory.flush()
        spent = self.spent
        return Outcome(
            zero_shot=zero_shot,
            dev=None if self.best is None else self.best.dev,
            test=test,
            best_step=best_step,
            spent=spent,
            step_ms_median=1000 * median(self.step_seconds) if self.step_seconds else None,
            elapsed_s=self._elapsed(),
            weights={"last": last, "tested": tested},
        )

    def advance(self, to: int) -> None:
        """Train up to a step, from wherever the memory has a state."""
        start = self._go_back_to_state()
        known = self.memory.known
        if known == 0 or start == known:
            self._take_over_costs()
        for step, numbers in enumerate(order_of(self.data, self.settings), start=1):
            if step > to:
                return
            if step < start:
                continue
            if step > start:
                with self._last_state_kept(step - 1):
                    self._make(step, numbers)
            if step == known > start:
                self._take_over_costs()
            if self._is_last(step) or step % self.settings.eval_every == 0:
                with self._last_state_kept(step):  # and then it is `start`, with this to be done
                    self._consider(step)
            if step > known and self._state_is_due(step):
                self._keep_state(step)

    def _make(self, step: int, numbers: Sequence[int]) -> None:
        lr_now = schedule_factor(self.settings.schedule, step, self.settings.steps)
        self.optimizer.lr = self.lr * lr_now
        if step <= self.memory.known:
            self._again(step, numbers)
        else:
            self._anew(step, numbers)

    def _is_last(self, step: int) -> bool:
        return step == self.settings.steps

    def _state_is_due(self, step: int) -> bool:
        """Every so often; and the test that follows the last step can be stopped too."""
        memory = self.memory
        return memory.wants_state(step) or (self._is_last(step) and memory.wants_last_state(step))

    @contextmanager
    def _last_state_kept(self, step: int) -> Iterator[None]:
        """If the run ends in here, whose weights are those of ``step``, they are not lost."""
        try:
            yield
        except (Stopped, UserError):
            if self.memory.wants_last_state(step):
                self._keep_state(step)
            raise

    def _again(self, step: int, numbers: Sequence[int]) -> None:
        """A step that was made before, from what the optimizer was told then."""
        if self.sharing is ALONE:  # elsewhere one process would leave the others waiting
            self.check()
        score = Score(
            self.engine, [], examples=len(numbers), sharing=self.sharing,
            recorded=self.memory.told(step),
        )  # fmt: skip
        try:
            report = self.optimizer.step(score)
        except NonFiniteLossError:
            return
        self.observer.advanced(step, report.loss)

    def _anew(self, step: int, numbers: Sequence[int]) -> None:
        """A step, unless a loss is not finite; then nothing is changed."""
        mine, order, tokens = self._parts(numbers)
        began = time.perf_counter()
        score = Score(
            self.engine, mine, order=order, sharing=self.sharing, examples=len(numbers),
            check=self.check, noise=partial(self.noise, step),
        )  # fmt: skip
        try:
            report = self.optimizer.step(score)
        except NonFiniteLossError as error:
            self._bad_step(step, error)
            self.memory.made(step, score.told, self._costs())
            return
        _synchronize(self.device)
        self.step_seconds.append(time.perf_counter() - began)
        spent = self.spent
        spent.train_s += self.step_seconds[-1]
        spent.bad_in_a_row = 0
        spent.forwards += report.forwards
        spent.backwards += report.backwards
        spent.examples += len(numbers)
        spent.queries += len(numbers) * report.forwards
        spent.tokens += tokens * report.forwards
        spent.backward_tokens += tokens * report.backwards
        self.observer.advanced(step, report.loss)
        if self._is_last(step) or step % self.settings.log_every == 0:
            self.observer.stepped(self._row(step, report))
        self.memory.made(step, score.told, self._costs())

    def _parts(self, numbers: Sequence[int]) -> tuple[list[Part], list[int], int]:
        """This process's examples of a batch: in parts, in which order they stand there, tokens.

        The tokens are those of the whole batch.
        """
        batch = [self.data.train[i] for i in numbers]
        shares = token_shares(batch) if self.data.by_tokens else None
        mine = list(self.sharing.examples(len(batch)))
        groups = self._groups([batch[i] for i in mine])
        order = [i for group in groups for i in group]
        made = [
            self.objective.part(
                [batch[mine[i]] for i in group],
                None if shares is None else [shares[mine[i]] for i in group],
            )
            for group in groups
        ]
        tokens = sum(laid.tokens for laid in made)
        if len(mine) < len(batch):
            groups = self._groups(batch)
            tokens = sum(self.objective.tokens([batch[i] for i in group]) for group in groups)
        return [laid.part for laid in made], order, tokens

    def _groups(self, examples: Sequence[Encoded]) -> list[list[int]]:
        return grouped(examples, self.data.layout, self.settings.micro_batch_size)

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
            "elapsed_s": round(self._elapsed(), 3),
        }

    def _consider(self, step: int) -> None:
        """Evaluate on dev and keep this step if it is the one to test so far."""
        dev = self._evaluate(step, "dev", self.data.dev)
        if self.best is None or is_better(dev, self.best.dev, self.settings.select):
            self.best = Best(step, dev, self.engine.state())

    def _evaluate(self, step: int, name: str, examples: Sequence[Encoded]) -> Metrics:
        before = self.memory.evaluation(step, name)
        if before is not None:
            return Metrics(before)
        with self.engine.weights():
            metrics = evaluate(
                self.judges[name],
                examples,
                self.settings.eval_batch_size,
                self.sharing,
                self.check,
                lambda done, of: self.observer.evaluating(name, done, of),
            )
        if not math.isfinite(metrics.loss):
            raise _not_finite(step, f"the {name} loss is {metrics.loss}")
        self.observer.evaluated(step, name, metrics, self.spent.forwards)
        self.memory.evaluated(step, name, metrics.values)
        return metrics

    def _keep_state(self, step: int) -> None:
        """Have everything kept that the run goes on from."""
        tensors = {f"engine/{name}": x for name, x in self.engine.state().items()}
        tensors |= {f"optimizer/{name}": x for name, x in optimizer_state(self.optimizer).items()}
        told: dict[str, Any] = {"best": None}
        if self.best is not None:
            told["best"] = {"step": self.best.step, "dev": dict(self.best.dev.values)}
            if self.best.step != step:
                tensors |= {f"best/{name}": x for name, x in self.best.state.items()}
        self.memory.keep(step, tensors, told)

    def _go_back_to_state(self) -> int:
        """Go to the state that the memory has; its step, 0 without one."""
        found = self.memory.state()
        if found is None:
            return 0
        step, tensors, told = found
        here = under("engine", tensors)
        self.engine.load_state(here)
        load_optimizer_state(self.optimizer, under("optimizer", tensors))
        if (best := told["best"]) is not None:
            state = here if best["step"] == step else under("best", tensors)
            self.best = Best(best["step"], Metrics(best["dev"]), state)
        return step

    def _take_over_costs(self) -> None:
        """What was spent before counts on."""
        before = self.memory.spent()
        if not before:
            return
        for field in fields(self.spent):
            kind = type(getattr(self.spent, field.name))
            setattr(self.spent, field.name, kind(before[field.name]))
        self.spent.sittings += 1
        self.elapsed_before = self.spent.elapsed_s

    def _costs(self) -> dict[str, float]:
        self.spent.elapsed_s = round(self._elapsed(), 1)
        return asdict(self.spent)

    def _elapsed(self) -> float:
        return self.elapsed_before + time.perf_counter() - self.began


def order_of(data: Data, settings: Settings) -> Iterator[list[int]]:
    """The rows of each training batch of a run, endlessly."""
    return shuffled(len(data.train), settings.batch_size, settings.seed)


def _not_finite(step: int, what: str) -> UserError:
    return UserError(
        f"step {step}: {what}; the run stops here and its result is not written. "
        "A smaller optimizer.lr or optimizer.eps, or model.dtype=fp32, usually helps"
    )


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
