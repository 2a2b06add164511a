"""From a plan to the components of a run: data, model, engine and optimizer, the cheapest first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from lozo_bench.allocation.base import Length
from lozo_bench.config.build import build
from lozo_bench.config.checks import class_count
from lozo_bench.config.schema import Config, EngineConfig, Kind, Minimize, ModelConfig
from lozo_bench.data.sets import Data
from lozo_bench.data.several import encoded_tasks
from lozo_bench.errors import UserError
from lozo_bench.evaluation.evaluate import Evaluator
from lozo_bench.models.check import output_layer
from lozo_bench.models.dropout import Dropout
from lozo_bench.models.load import Loaded, load
from lozo_bench.objectives.classifier import classifier_scorer
from lozo_bench.objectives.losses import Objective
from lozo_bench.objectives.options import Scorer, option_scorer
from lozo_bench.optimizers.base import Needs, Optimizer
from lozo_bench.parallel.team import Team
from lozo_bench.randomness.draws import Draws
from lozo_bench.training.batcher import Batcher
from lozo_bench.training.choose_engine import ChosenEngine, agreed_engine, choose_engine
from lozo_bench.training.from_run import from_runs
from lozo_bench.training.interfaces import Components, Settings, no_dropout
from lozo_bench.training.objectives_of_tasks import objectives_of_tasks
from lozo_bench.training.plan import Plan
from lozo_bench.training.rows import TrainingRows, training_rows
from lozo_bench.training.same_everywhere import require_same_parts
from lozo_bench.training.shareable import require_shareable
from lozo_bench.training.splits import splits_of_tasks
from lozo_bench.training.start_batches import start_of, started
from lozo_bench.tuning.base import Tuned
from lozo_bench.tuning.gates import Gates
from lozo_bench.tuning.start import tune


@dataclass(frozen=True, slots=True)
class BuiltRun:
    """A run that is ready to train.

    Args:
        loaded: the model and its tokenizer.
        X: the weights that move, by name.
        chosen: the engine, and why it is this one.
        parts: what the trainer puts together.
        gates: what turns low-rank modules on and off, if the tuning has any.
        start: a fingerprint of what the tuning computed from training rows, if it did so.
    """

    loaded: Loaded
    X: Mapping[str, Tensor]
    chosen: ChosenEngine
    parts: Components
    gates: Gates | None = None
    start: str | None = None


def build_run(
    config: Config, plan: Plan, team: Team, engine_before: Mapping[str, Any] | None = None
) -> BuiltRun:
    """Read the data, load the model, and make engine and optimizer.

    Args:
        config: the run's config.
        plan: what `plan_run` returned for it.
        team: the processes of the run; all of them use the same engine.
        engine_before: what an earlier attempt recorded about its engine, which this one continues
            with, because another engine rounds in another way.

    Raises:
        UserError: bad data, or a model that cannot be loaded.
    """
    config = from_runs(config, team)
    splits = splits_of_tasks(config, plan)
    needs = plan.needs or Needs()
    draws = Draws(config.seed.value)
    loaded = load(_model_config(config, needs), class_count(config.task), config.seed.value)
    loaded, tuned = tune(plan.tuning, loaded, draws)
    if plan.needs is not None:
        _check_movable(_output_layer(loaded) if needs.features else tuned.X, config, loaded)

    data = encoded_tasks(config, splits, loaded, tuned, plan.needs)
    if tuned.start is not None and plan.needs is not None:
        tuned = _started(config, loaded, tuned, data)
    require_same_parts(team, data, tuned.model)
    X = _output_layer(loaded) if needs.features else tuned.X
    rows = training_rows(config, data, needs)
    objective, evaluators = _objective(config, needs, loaded, tuned, data, rows, team)
    micro_batch_size = _micro_batch_size(config, needs)

    batcher = Batcher(data, objective, micro_batch_size)
    choose = partial(
        choose_engine,
        model=loaded.model,
        X=X,
        needs=needs,
        draws=draws,
        rank=config.rank.value,
        first_batch=lambda: batcher.batch(next(rows.batches())).parts,
        written_in_place=not (tuned.all_weights or tuned.beside),
        extras=tuned.extras,
    )
    chosen = agreed_engine(_engine_config(config.engine, tuned), choose, team, engine_before)
    optimizer = _optimizer(config, plan, chosen, tuned, draws, rows)
    parts = Components(
        engine=chosen.engine,
        optimizer=optimizer,
        objective=objective,
        evaluators=evaluators,
        data=data,
        rows=rows,
        settings=_settings(config, optimizer, micro_batch_size),
        device=loaded.device,
        dropout=Dropout(tuned.model, config.seed.value) if needs.dropout else no_dropout,
        smooth=config.objective is Minimize.loss,
    )
    return BuiltRun(loaded, X, chosen, parts, tuned.gates, start_of(tuned))


def _optimizer(
    config: Config,
    plan: Plan,
    chosen: ChosenEngine,
    tuned: Tuned,
    draws: Draws,
    rows: TrainingRows,
) -> Optimizer | None:
    """Return the optimizer, with its allocation around it if there is one."""
    if not config.optimizer:
        return None
    optimizer: Optimizer = build(config.optimizer, "optimizer", chosen.engine, draws)
    if plan.allocation is None:
        return optimizer
    steps = config.steps if optimizer.needs.steps is None else optimizer.needs.steps
    epochs = {name: -(-count // size) for name, (count, size) in rows.sizes().items()}
    around = plan.allocation.around
    return around(optimizer, chosen.engine, tuned, draws, Length(steps, epochs))


def _model_config(config: Config, needs: Needs) -> ModelConfig:
    """Return the model's config; an output layer that is solved for must not be the embeddings."""
    return dataclasses.replace(config.model, untie_head=True) if needs.features else config.model


def _engine_config(config: EngineConfig, tuned: Tuned) -> EngineConfig:
    """Return the engine's config; no layer is skipped if layers pass on more than one state."""
    reuse = config.reuse_prefix and tuned.layers_pass_one_state
    return dataclasses.replace(config, reuse_prefix=reuse)


def _check_movable(X: Mapping[str, Tensor], config: Config, loaded: Loaded) -> None:
    """Refuse a run that would make its steps without moving anything."""
    if any(x.numel() for x in X.values()):
        return
    tuning = str(config.tuning.get("_target_", "")).rpartition(".")[2]
    raise UserError(
        f"tuning: {tuning} selects no parameter of {loaded.name} ({type(loaded.model).__name__}), "
        "so every step would move nothing; what to do: choose another tuning, such as tuning=full"
    )


def _output_layer(loaded: Loaded) -> dict[str, Tensor]:
    layer = output_layer(loaded.model)
    if layer is None:
        raise UserError(f"optimizer: model={loaded.name} has no output layer to solve for")
    wanted = {id(x) for x in (layer.weight, layer.bias) if x is not None}
    return {name: x for name, x in loaded.model.named_parameters() if id(x) in wanted}


def _objective(
    config: Config,
    needs: Needs,
    loaded: Loaded,
    tuned: Tuned,
    data: Data,
    rows: TrainingRows,
    team: Team,
) -> tuple[Objective, dict[str, Evaluator]]:
    require_shareable(config, needs, rows, team.size)
    shared = team.size > 1 and needs.updates_by_gradient
    forward = team.sharing.differentiable(tuned.model) if shared else tuned.model
    scorer_of = partial(_scorer, loaded, tuned, forward)
    return objectives_of_tasks(config, needs.features, loaded, tuned, data, scorer_of)


def _started(config: Config, loaded: Loaded, tuned: Tuned, data: Data) -> Tuned:
    """Return what is trained after the tuning has seen training rows, the same in each process."""
    scorer_of = partial(_scorer, loaded, tuned, tuned.model)
    by_loss = dataclasses.replace(config, objective=Minimize.loss)
    objective, _ = objectives_of_tasks(by_loss, False, loaded, tuned, data, scorer_of)
    size = config.micro_batch_size or config.batch_size
    return started(tuned, data, objective, size, config.seed.value, loaded.device)


def _scorer(loaded: Loaded, tuned: Tuned, forward: nn.Module, data: Data) -> Scorer:
    if loaded.kind is Kind.classifier:
        return classifier_scorer(tuned.model, forward)
    return option_scorer(tuned.model, data.layout.scoring, forward, data.by_tokens)


def _micro_batch_size(config: Config, needs: Needs) -> int | None:
    if needs.batch.batch_size == "all":
        return config.micro_batch_size or config.eval_batch_size
    return config.micro_batch_size


def _settings(
    config: Config, optimizer: Optimizer | None, micro_batch_size: int | None
) -> Settings:
    """Return the config's settings, except where the method fixes them."""
    fixed = 0 if optimizer is None else optimizer.needs.steps
    return Settings(
        steps=config.steps if fixed is None else fixed,
        eval_batch_size=config.eval_batch_size,
        eval_every=config.eval_every,
        log_every=config.log_every,
        schedule=config.schedule,
        select=config.task.select,
        max_bad_steps=config.engine.max_bad_steps,
        micro_batch_size=micro_batch_size,
        patience=config.patience,
        max_queries=config.max_queries,
        max_seconds=config.max_seconds,
    )
