"""From a config to the parts of a run: data, model, engine, optimizer; the cheapest first."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lozo_bench.aims import aims
from lozo_bench.batches import grouped
from lozo_bench.build import build
from lozo_bench.checks import check, check_prompts, class_count
from lozo_bench.config import (
    Config,
    EngineConfig,
    EngineMode,
    Kept,
    Kind,
    ModelConfig,
    Split,
)
from lozo_bench.config import Objective as Lowered
from lozo_bench.contract import Data, Settings
from lozo_bench.encoding import encoded, prompt_for
from lozo_bench.engine.draws import Draws
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.score import Part
from lozo_bench.engines import Chosen, engine_for
from lozo_bench.errors import UserError, bad_value
from lozo_bench.evaluation.evaluate import Judge
from lozo_bench.models.check import output_layer
from lozo_bench.models.dropout import Dropout
from lozo_bench.models.load import Loaded, load
from lozo_bench.models.locate import model_kind
from lozo_bench.objectives.classifier import classifier_scorer
from lozo_bench.objectives.losses import Objective
from lozo_bench.objectives.options import option_scorer
from lozo_bench.optimizers.base import Optimizer, Steps
from lozo_bench.parallel.team import Team
from lozo_bench.tasks.base import Source
from lozo_bench.tasks.invented import invented
from lozo_bench.trainer import StepNoise, no_noise, order_of
from lozo_bench.tuning.base import Tuning
from lozo_bench.tuning.full import Full
from lozo_bench.tuning.head import with_new_head

_NOT_FROM_SCALARS = (Steps.gradient, Steps.closed_form)


@dataclass(frozen=True, slots=True)
class Plan:
    """What can be known before data or model are touched."""

    source: Source
    tuning: Tuning
    method: Optimizer  # on no weights: what it needs and what it shows
    full_states: bool

    @property
    def steps(self) -> Steps:
        """What the method's candidates are."""
        return self.method.steps

    @property
    def replayable(self) -> bool:
        """Whether a run's steps can be made again from what the optimizer was told."""
        return self.steps not in _NOT_FROM_SCALARS


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything a run is made of."""

    loaded: Loaded
    X: Mapping[str, Tensor]
    data: Data
    objective: Objective
    judges: Mapping[str, Judge]
    chosen: Chosen
    optimizer: Optimizer
    settings: Settings
    noise: StepNoise


def planned(config: Config) -> Plan:
    """Find whatever is wrong before data or model are touched.

    Raises:
        UserError: a value is out of range, or two do not go together.
    """
    check(config)
    if (kind := model_kind(config.model)) is not None:
        check_prompts(config, kind)
    method: Optimizer = build(config.optimizer, "optimizer", InPlace({}), Draws(0))
    source: Source = build(config.task.source, "task.source")
    tuning: Tuning = build(config.tuning, "tuning")
    _check_untuned(config, method, tuning)
    not_from_scalars = method.steps in _NOT_FROM_SCALARS
    kind_kept = config.checkpoint.kind
    if not_from_scalars and kind_kept is Kept.log:
        raise bad_value("checkpoint.kind", "log", "full or auto: gradients are not in a scalar log")
    if (
        not_from_scalars or getattr(method, "differentiates", False)
    ) and config.objective is Lowered.metric:
        raise bad_value("objective", "metric", "loss: a metric has no gradient")
    if config.model.autocast is not None and method.steps is Steps.thin:
        _check_in_place(config)
    full = kind_kept is Kept.full or (not_from_scalars and kind_kept is Kept.auto)
    return Plan(source, tuning, method, full)


def _check_in_place(config: Config) -> None:
    if config.engine.mode is not EngineMode.in_place:
        allowed = "null with this optimizer, or engine.mode=in_place; or say model.dtype=bf16"
        raise bad_value("model.autocast", config.model.autocast, allowed)


def _check_untuned(config: Config, method: Optimizer, tuning: Tuning) -> None:
    """Methods that make no steps of their own have nothing to tune, and a probe needs words."""
    if method.steps not in (Steps.none, Steps.closed_form):
        return
    if not isinstance(tuning, Full):
        name = config.optimizer["_target_"].rpartition(".")[2]
        raise UserError(f"tuning: {type(tuning).__name__} is given; allowed with {name}: full")
    if method.steps is Steps.closed_form and config.model.kind is Kind.classifier:
        raise bad_value("model.kind", "classifier", "causal or masked: a probe solves for words")


def assembled(
    config: Config, plan: Plan, team: Team, engine_before: Mapping[str, Any] | None = None
) -> Parts:
    """Read the data, load the model, and make engine and optimizer.

    ``engine_before`` is what `Chosen.told` said when the run began: it goes on with that engine,
    because another one rounds in another way. All processes of a run have one engine, too.

    Raises:
        UserError: bad data, or a model that cannot be had.
    """
    made_up = config.task.invented_rows
    splits = invented(config.task, config.seed.value) if made_up else plan.source.splits()
    model = _untied(config.model) if plan.steps is Steps.closed_form else config.model
    loaded = load(model, class_count(config.task), config.seed.value)
    draws = Draws(config.seed.value)
    tuned = with_new_head(plan.tuning.tune(loaded, draws), loaded)
    X = _output_layer(loaded) if plan.steps is Steps.closed_form else tuned.X
    prompt = prompt_for(config, loaded, tuned)
    data = encoded(config, splits, prompt, loaded, tuned, plan.method)
    settings = _settings(config, plan.steps, len(data.train))
    forward: nn.Module = tuned.model
    if team.size > 1 and plan.steps is Steps.closed_form:
        raise UserError(f"optimizer: one process solves for it; it was started as {team.size}")
    if team.size > 1 and plan.steps is Steps.gradient:
        _check_shares(config, data, team)
        forward = team.sharing.differentiable(tuned.model)
    if loaded.kind is Kind.classifier:
        scorer = classifier_scorer(tuned.model, forward)
    else:
        scorer = option_scorer(tuned.model, data.layout.scoring, forward, data.by_tokens)
    objective, judges = aims(config, plan.steps, loaded, tuned, data, scorer)

    def first_batch() -> list[Part]:
        batch = [data.train[i] for i in next(order_of(data, settings))]
        groups = grouped(batch, data.layout, settings.micro_batch_size)
        return [objective.part([batch[i] for i in group], None).part for group in groups]

    def choose(engine: EngineConfig) -> Chosen:
        rank = config.rank.value
        return engine_for(
            engine, loaded.model, X, plan.steps, draws, rank, first_batch, whole=tuned.whole
        )

    if engine_before is None and team.rank == 0:
        chosen = choose(config.engine)
        team.from_first(json.dumps(chosen.told()).encode())
    else:
        told = engine_before or json.loads(team.from_first(b""))
        chosen = choose(as_before(config.engine, told))
    optimizer: Optimizer = build(config.optimizer, "optimizer", chosen.engine, draws)
    drops = getattr(optimizer, "dropout", False)
    noise = Dropout(tuned.model, config.seed.value) if drops else no_noise
    return Parts(loaded, X, data, objective, judges, chosen, optimizer, settings, noise)


def _untied(model: ModelConfig) -> ModelConfig:
    """A linear probe writes to the output layer, and must not write to the embeddings with it."""
    return dataclasses.replace(model, untie_head=True)


def _output_layer(loaded: Loaded) -> dict[str, Tensor]:
    layer = output_layer(loaded.model)
    if layer is None:
        raise UserError(f"optimizer: model={loaded.name} has no output layer to solve for")
    wanted = {id(x) for x in (layer.weight, layer.bias) if x is not None}
    return {name: x for name, x in loaded.model.named_parameters() if id(x) in wanted}


def as_before(config: EngineConfig, told: Mapping[str, Any]) -> EngineConfig:
    """The engine's config with the choices that were made when the run began."""
    if config.mode is not EngineMode.auto:
        return config
    return dataclasses.replace(
        config,
        mode=EngineMode[told["mode"]],
        candidates_per_forward=told["candidates_per_forward"],
    )


def _check_shares(config: Config, data: Data, team: Team) -> None:
    if config.parallel.split is Split.candidates:
        raise bad_value("parallel.split", "candidates", "batch: a gradient has no candidates")
    smallest = min(config.batch_size, len(data.train) % config.batch_size or config.batch_size)
    if smallest < team.size:
        raise UserError(
            f"batch_size: given {config.batch_size}, of which the last of {len(data.train)} rows "
            f"leaves a batch of {smallest}; allowed: batches of at least {team.size} rows, one for "
            "each process"
        )


def _settings(config: Config, steps: Steps, rows: int) -> Settings:
    """As the config says, but for methods that look at all rows once, or at none."""
    count, batch_size, micro = config.steps, config.batch_size, config.micro_batch_size
    if steps is Steps.none:
        count = 0
    elif steps is Steps.closed_form:
        count, batch_size, micro = 1, rows, micro or config.eval_batch_size
    return Settings(
        steps=count,
        batch_size=batch_size,
        eval_batch_size=config.eval_batch_size,
        eval_every=config.eval_every,
        log_every=config.log_every,
        schedule=config.schedule,
        select=config.task.select,
        seed=config.seed.value,
        max_bad_steps=config.engine.max_bad_steps,
        micro_batch_size=micro,
    )
