"""The estimate of one run, from its config alone."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor

from lozo_bench.config.schema import Config
from lozo_bench.estimate.cards import Card, card
from lozo_bench.estimate.memory import (
    Held,
    Memory,
    best_step_on_disk,
    is_fused,
    memory_of,
)
from lozo_bench.estimate.passes import Evaluation, Step, batches, evaluation_of, step_of
from lozo_bench.estimate.rows import Rows, rows_of
from lozo_bench.estimate.shapes import Shaped, Shapes
from lozo_bench.estimate.times import Times, times_of
from lozo_bench.models.check import output_layer
from lozo_bench.models.load import Loaded
from lozo_bench.optimizers.base import Needs
from lozo_bench.training.plan import Plan, plan_run
from lozo_bench.tuning.base import Tuned

_BYTES_OF_A_LOSS = 4
_BYTES_OF_A_ROW = 350  # of metrics.jsonl
_BYTES_OF_A_RUN = 60_000  # config, journal's header, result, log
# What cannot change a run's memory, time or disk.
_WITHOUT_EFFECT = ("seed", "tracking", "table", "sweep", "rerun", "scale", "plugins", "predictions")


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run needs and costs.

    Args:
        memory: by what takes it.
        times: of a step, the evaluations and the run.
        disk: bytes in the run's folder, with the weights of the best step while it runs.
        card: the machine.
        cards: how many of them the run has.
        notes: what was assumed.
    """

    memory: Memory
    times: Times
    disk: float
    card: Card
    cards: int
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the run has room."""
        return self.memory.peak <= self.card.memory * self.cards

    @property
    def hours(self) -> float:
        """Hours of all cards together."""
        return self.times.total_s * self.cards / 3600

    @property
    def kwh(self) -> float:
        """Energy of the cards, without the machine around them."""
        return self.hours * self.card.watts / 1000


@dataclass
class Estimator:
    """Estimates runs; what several have in common is worked out once."""

    _shapes: Shapes = field(default_factory=Shapes)
    _rows: dict[str, Rows] = field(default_factory=dict)
    _estimates: dict[str, Estimate] = field(default_factory=dict)

    def estimate(self, config: Config) -> Estimate:
        """Return the estimate of a run.

        Raises:
            UserError: the model's shapes are not known, or the config is wrong.
        """
        key = _key(config)
        if key not in self._estimates:
            self._estimates[key] = self._estimate(config, plan_run(config))
        return self._estimates[key]

    def _estimate(self, config: Config, plan: Plan) -> Estimate:
        machine = card(config.estimate.card)
        shaped = self._shapes.of(config, plan)
        rows = self._rows_of(config, plan, shaped)
        needs = plan.needs
        step = Step(0, 0) if needs is None else step_of(config, needs)
        held, sets = self._held(config, plan, step, shaped, rows)
        memory = memory_of(config, needs, held, machine.is_cpu, plan.full_states)
        steps = _steps(config, needs)
        times = times_of(config, needs, step, held, shaped.load, machine, steps, sets, rows.writes)
        notes = [rows.assumed] if rows.assumed else []
        if not step.known:
            notes.append(f"{config.task.name}: a step is taken to have {step.forwards:g} passes")
        disk = _disk(config, plan, step, held, steps)
        cards = 1 if machine.is_cpu else max(1, config.estimate.cards)
        return Estimate(memory, times, disk, machine, cards, tuple(notes))

    def _rows_of(self, config: Config, plan: Plan, shaped: Shaped) -> Rows:
        parts = (config.task, config.seed, config.evaluation, config.engine)
        texts = json.dumps([dataclasses.asdict(part) for part in parts], default=str)
        key = f"{id(shaped)}{texts}"  # the models are kept
        if key not in self._rows:
            self._rows[key] = rows_of(config, plan, shaped)
        return self._rows[key]

    def _held(
        self,
        config: Config,
        plan: Plan,
        step: Step,
        shaped: Shaped,
        rows: Rows,
    ) -> tuple[Held, tuple[Evaluation, Evaluation]]:
        size, needs = config.eval_batch_size, plan.needs
        loaded, tuned = shaped.loaded, shaped.tuned
        dev = evaluation_of([] if needs is None else rows.data.dev, rows.data, size)
        test = evaluation_of(rows.data.test, rows.data, size)
        gradient = needs is not None and needs.gradient
        dropout = needs is not None and needs.dropout
        head = output_layer(loaded.model)
        held = Held(
            X=_features(loaded, tuned) if needs is not None and needs.features else tuned.X,
            weights=shaped.weights,
            traced=self._shapes.trace(config, plan, gradient=False, dropout=False),
            traced_gradient=self._shapes.trace(config, plan, gradient=True, dropout=dropout)
            if gradient
            else None,
            step_parts=[]
            if needs is None
            else batches(rows.data, config, needs, config.micro_batch_size),
            eval_parts=[*dev.parts[-1:], *test.parts[-1:]],
            vocabulary=2 if head is None else head.weight.shape[0],
            candidates=step.forwards,
            fused=is_fused(config, needs, tuned.all_weights or tuned.beside),
        )
        return held, (dev, test)


def _features(loaded: Loaded, tuned: Tuned) -> Mapping[str, Tensor]:
    head = output_layer(loaded.model)
    return tuned.X if head is None else {"head": head.weight}


def _steps(config: Config, needs: Needs | None) -> int:
    if needs is None:
        return 0
    return config.steps if needs.steps is None else needs.steps


def _disk(config: Config, plan: Plan, step: Step, held: Held, steps: int) -> float:
    rows = steps / max(1, config.log_every) + steps / max(1, config.eval_every)
    size = _BYTES_OF_A_RUN + _BYTES_OF_A_ROW * rows + best_step_on_disk(config, plan.needs, held)
    if not plan.full_states:
        return size + _BYTES_OF_A_LOSS * step.forwards * steps
    trained = float(sum(x.nbytes for x in held.X.values()))
    adam = "adamw" in str(config.optimizer.get("_target_", "")).lower()
    # Weights, those of the best step, and the moments; one more while the next is written.
    state = trained * (2 + 2 * adam)
    written = math.ceil(steps / max(1, config.checkpoint.every))
    return size + state * min(config.checkpoint.keep + 1, max(1, written))


def _key(config: Config) -> str:
    values = dataclasses.asdict(config)
    for name in _WITHOUT_EFFECT:
        values.pop(name, None)
    values["optimizer"] = {k: v for k, v in config.optimizer.items() if k not in ("lr", "eps")}
    return json.dumps(values, default=lambda x: x.value if isinstance(x, Enum) else str(x))
