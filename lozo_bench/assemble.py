"""From a config to the parts of a run: data, model, engine, optimizer; the cheapest first."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lozo_bench.batches import Layout, Scoring, parts
from lozo_bench.build import build
from lozo_bench.config import (
    Config,
    EngineConfig,
    EngineMode,
    Kept,
    Kind,
    Split,
    check,
    check_prompts,
)
from lozo_bench.contract import Data, Settings
from lozo_bench.engine.draws import Draws
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.score import Part
from lozo_bench.engines import Chosen, engine_for
from lozo_bench.errors import UserError, bad_value
from lozo_bench.models.load import Loaded, load
from lozo_bench.models.locate import model_kind
from lozo_bench.objectives.options import Scorer, option_scorer, scored, takes_packed_rows
from lozo_bench.optimizers.base import Optimizer, Steps
from lozo_bench.parallel.team import Team
from lozo_bench.tasks.base import Encoded, Prompt, Source
from lozo_bench.tasks.causal import CausalPrompt
from lozo_bench.tasks.masked import MaskedPrompt
from lozo_bench.trainer import order_of


@dataclass(frozen=True, slots=True)
class Plan:
    """What can be known before data or model are touched."""

    source: Source
    steps: Steps
    full_states: bool

    @property
    def replayable(self) -> bool:
        """Whether a run's steps can be made again from what the optimizer was told."""
        return self.steps is not Steps.gradient


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything a run is made of."""

    loaded: Loaded
    X: Mapping[str, Tensor]
    data: Data
    scorer: Scorer
    chosen: Chosen
    optimizer: Optimizer
    settings: Settings


def planned(config: Config) -> Plan:
    """Find whatever is wrong before data or model are touched.

    Raises:
        UserError: a value is out of range, or two do not go together.
    """
    check(config)
    if (kind := model_kind(config.model)) is not None:
        check_prompts(config, kind)
    # On no weights: only checks the options.
    optimizer: Optimizer = build(config.optimizer, "optimizer", InPlace({}), Draws(0))
    source: Source = build(config.task.source, "task.source")
    first_order = optimizer.steps is Steps.gradient
    kind_kept = config.checkpoint.kind
    if first_order and kind_kept is Kept.log:
        raise bad_value("checkpoint.kind", "log", "full or auto: gradients are not in a scalar log")
    full = kind_kept is Kept.full or (first_order and kind_kept is Kept.auto)
    return Plan(source, optimizer.steps, full)


def assembled(
    config: Config, plan: Plan, team: Team, engine_before: Mapping[str, Any] | None = None
) -> Parts:
    """Read the data, load the model, and make engine and optimizer.

    ``engine_before`` is what `Chosen.told` said when the run began: it goes on with that engine,
    because another one rounds in another way. All processes of a run have one engine, too.

    Raises:
        UserError: bad data, or a model that cannot be had.
    """
    splits = plan.source.splits()
    loaded = load(config.model)
    prompt = _prompt(config, loaded)
    layout = _layout(config, loaded, prompt)
    data = Data(
        train=_encode(prompt, splits.train, "train"),
        dev=_encode(prompt, splits.dev, "dev"),
        test=_encode(prompt, splits.test, "test"),
        layout=layout,
    )
    settings, draws = _settings(config), Draws(config.seed.value)
    forward: nn.Module = loaded.model
    if team.size > 1 and plan.steps is Steps.gradient:
        _check_shares(config, data, team)
        forward = DistributedDataParallel(
            loaded.model, find_unused_parameters=True, broadcast_buffers=False
        )
    scorer = option_scorer(loaded.model, layout.scoring, forward)
    X = {name: x for name, x in loaded.model.named_parameters() if x.requires_grad}

    def first_batch() -> list[Part]:
        batch = [data.train[i] for i in next(order_of(data, settings))]
        return [scored(scorer, part.to(loaded.device)) for part in parts(batch, layout)]

    def choose(engine: EngineConfig) -> Chosen:
        rank = config.rank.value
        return engine_for(engine, loaded.model, X, plan.steps, draws, rank, first_batch)

    if engine_before is None and team.rank == 0:
        chosen = choose(config.engine)
        team.from_first(json.dumps(chosen.told()).encode())
    else:
        told = engine_before or json.loads(team.from_first(b""))
        chosen = choose(as_before(config.engine, told))
    optimizer: Optimizer = build(config.optimizer, "optimizer", chosen.engine, draws)
    return Parts(loaded, X, data, scorer, chosen, optimizer, settings)


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


def _prompt(config: Config, loaded: Loaded) -> MaskedPrompt | CausalPrompt:
    check_prompts(config, loaded.kind)
    task = config.task
    if loaded.kind is Kind.masked:
        assert task.template is not None
        return MaskedPrompt(
            loaded.tokenizer,
            task.template,
            task.label_words,
            task.max_length,
            task.first_sentence_limit,
            task.other_sentence_limit,
        )
    assert task.prompt is not None
    return CausalPrompt(loaded.tokenizer, task.prompt, task.options, task.max_length)


def _layout(config: Config, loaded: Loaded, prompt: MaskedPrompt | CausalPrompt) -> Layout:
    return Layout(
        pad_id=loaded.tokenizer.pad_token_id,
        label_ids=prompt.label_ids if isinstance(prompt, MaskedPrompt) else (),
        scoring=_scoring(config),
        packed=takes_packed_rows(loaded.model),
    )


def _encode(prompt: Prompt, examples: list[Any], split: str) -> list[Encoded]:
    if not examples:
        raise UserError(f"task.source: the {split} set is empty")
    return [prompt.encode(example) for example in examples]


def _settings(config: Config) -> Settings:
    return Settings(
        steps=config.steps,
        batch_size=config.batch_size,
        eval_batch_size=config.eval_batch_size,
        eval_every=config.eval_every,
        log_every=config.log_every,
        schedule=config.schedule,
        select=config.task.select,
        seed=config.seed.value,
        max_bad_steps=config.engine.max_bad_steps,
    )


def _scoring(config: Config) -> Scoring:
    engine = config.engine
    return Scoring(
        positions=engine.answer_positions,
        columns=engine.answer_columns,
        share_prompt=engine.share_prompt,
        buckets=engine.buckets,
    )
