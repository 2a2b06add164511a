"""The estimate of one run, from its config alone."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from lozo_bench.config.checks import class_count
from lozo_bench.config.schema import Config
from lozo_bench.errors import UserError
from lozo_bench.estimate.cards import Card, card
from lozo_bench.estimate.memory import Held, Memory, is_fused, memory_of
from lozo_bench.estimate.passes import Evaluation, Step, batches, evaluation_of, step_of
from lozo_bench.estimate.rows import Rows, rows_of
from lozo_bench.estimate.times import Load, Times, times_of
from lozo_bench.estimate.trace import Trace, trace
from lozo_bench.models.check import output_layer
from lozo_bench.models.load import Loaded
from lozo_bench.models.meta import load_without_weights
from lozo_bench.optimizers.base import Needs
from lozo_bench.randomness.draws import Draws
from lozo_bench.runs import provenance
from lozo_bench.training.plan import Plan, plan_run
from lozo_bench.tuning.base import Tuned
from lozo_bench.tuning.prefix import Prefix
from lozo_bench.tuning.prompt import Prompt
from lozo_bench.tuning.start import tune

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
        disk: bytes in the run's folder.
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

    _models: dict[str, tuple[Loaded, Tuned]] = field(default_factory=dict)
    _traces: dict[str, Trace] = field(default_factory=dict)
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
        loaded, tuned = self._tuned(config, plan)
        rows = rows_of(config, plan, loaded, tuned.virtual_tokens)
        needs = plan.needs
        step = Step(0, 0) if needs is None else step_of(config, needs)
        held, sets = self._held(config, needs, step, loaded, tuned, rows)
        memory = memory_of(config, needs, held, machine.is_cpu, plan.full_states)
        steps = _steps(config, needs)
        times = times_of(config, needs, step, held, _load(tuned), machine, steps, sets, rows.writes)
        notes = [rows.assumed] if rows.assumed else []
        if not step.known:
            notes.append(f"{config.task.name}: a step is taken to have {step.forwards:g} passes")
        disk = _disk(config, plan, step, held, steps)
        cards = 1 if machine.is_cpu else max(1, config.estimate.cards)
        return Estimate(memory, times, disk, machine, cards, tuple(notes))

    def _tuned(self, config: Config, plan: Plan) -> tuple[Loaded, Tuned]:
        classes = class_count(config.task)
        key = f"{config.model}{classes}{json.dumps(config.tuning, default=str)}"
        if key not in self._models:
            loaded = load_without_weights(config.model, classes)
            self._models[key] = _tune(config, plan, loaded)
        return self._models[key]

    def _held(
        self,
        config: Config,
        needs: Needs | None,
        step: Step,
        loaded: Loaded,
        tuned: Tuned,
        rows: Rows,
    ) -> tuple[Held, tuple[Evaluation, Evaluation]]:
        size = config.eval_batch_size
        dev = evaluation_of([] if needs is None else rows.data.dev, rows.data, size)
        test = evaluation_of(rows.data.test, rows.data, size)
        gradient = needs is not None and needs.gradient
        dropout = needs is not None and needs.dropout
        head = output_layer(loaded.model)
        held = Held(
            X=_features(loaded, tuned) if needs is not None and needs.features else tuned.X,
            weights=float(_bytes(tuned)),
            traced=self._trace(config, loaded, False, False),
            traced_gradient=self._trace(config, loaded, True, dropout) if gradient else None,
            step_parts=[]
            if needs is None
            else batches(rows.data, config, needs, config.micro_batch_size),
            eval_parts=[*dev.parts[-1:], *test.parts[-1:]],
            vocabulary=2 if head is None else head.weight.shape[0],
            candidates=step.forwards,
            fused=is_fused(config, needs, tuned.all_weights or tuned.beside),
        )
        return held, (dev, test)

    def _trace(self, config: Config, loaded: Loaded, gradient: bool, dropout: bool) -> Trace:
        key = f"{config.model}{json.dumps(config.tuning, default=str)}{gradient}{dropout}"
        if key not in self._traces:
            found = trace(loaded, gradient, dropout)
            if config.model.autocast is not None:
                found = Trace(found.peak / 2, found.kept / 2, found.operations)
            if gradient and config.model.gradient_checkpointing:
                found = _checkpointed(found, loaded)
            self._traces[key] = found
        return self._traces[key]


def _tune(config: Config, plan: Plan, loaded: Loaded) -> tuple[Loaded, Tuned]:
    tuning, model = plan.tuning, loaded.model
    if isinstance(tuning, Prefix | Prompt):
        model.requires_grad_(False)
        return loaded, _virtual(tuning, loaded)
    try:
        return tune(tuning, loaded, Draws(config.seed.value))
    except (RuntimeError, NotImplementedError, AttributeError, TypeError) as error:
        name = type(tuning).__name__
        raise UserError(
            f"tuning: {name} cannot be estimated without the model's weights or its tokenizer "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from error


def _virtual(tuning: Prefix | Prompt, loaded: Loaded) -> Tuned:
    """Return what a prefix or a prompt trains: its start needs the tokenizer, its shapes do not."""
    config: Any = loaded.model.config
    width = config.hidden_size
    if isinstance(tuning, Prompt):
        shapes = {"soft_prompt.words": (tuning.tokens, width)}
    else:
        heads = config.num_attention_heads
        share = (getattr(config, "num_key_value_heads", None) or heads) / heads
        shapes = {
            f"{layer}.prefix.{kind}": (tuning.tokens, round(width * share))
            for layer in range(config.num_hidden_layers)
            for kind in ("keys", "values")
        }
    X = {
        name: torch.nn.Parameter(torch.empty(shape, device="meta", dtype=torch.float32))
        for name, shape in shapes.items()
    }
    virtual = tuning.tokens if isinstance(tuning, Prompt) else 0
    return Tuned(X, loaded.model, all_weights=False, virtual_tokens=virtual)


def _features(loaded: Loaded, tuned: Tuned) -> Mapping[str, Tensor]:
    head = output_layer(loaded.model)
    return tuned.X if head is None else {"head": head.weight}


def _checkpointed(full: Trace, loaded: Loaded) -> Trace:
    """Keep what enters each layer, and all of the one layer that is recomputed."""
    config: Any = loaded.model.config
    entering = config.num_hidden_layers * config.hidden_size * loaded.model.dtype.itemsize
    kept = entering + full.kept / config.num_hidden_layers
    return Trace(full.peak, min(full.kept, kept), full.operations)


def _bytes(tuned: Tuned) -> int:
    tensors = {id(x): x for x in (*tuned.model.parameters(), *tuned.model.buffers())}
    tensors |= {id(x): x for x in tuned.X.values()}
    return sum(x.nbytes for x in tensors.values())


def _load(tuned: Tuned) -> Load:
    matrices = [x for x in tuned.X.values() if x.ndim >= 2]
    model: Any = tuned.model
    head, config = output_layer(model), model.config
    return Load(
        multiplied=provenance.flops(tuned.model, 1, 0) / 2,
        heights=sum(len(x) for x in matrices),
        widths=sum(x[0].numel() for x in matrices),
        width=config.hidden_size if head is None else head.weight.shape[1],
    )


def _steps(config: Config, needs: Needs | None) -> int:
    if needs is None:
        return 0
    return config.steps if needs.steps is None else needs.steps


def _disk(config: Config, plan: Plan, step: Step, held: Held, steps: int) -> float:
    rows = steps / max(1, config.log_every) + steps / max(1, config.eval_every)
    size = _BYTES_OF_A_RUN + _BYTES_OF_A_ROW * rows
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
