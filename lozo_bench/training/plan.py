"""What can be known, and refused, before data or model are touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lozo_bench.allocation.base import Allocation
from lozo_bench.config.build import build, require
from lozo_bench.config.digest import digest
from lozo_bench.config.schema import Config, Kept, Kind, LossKind, Minimize
from lozo_bench.config.several import in_task, task_configs
from lozo_bench.engine.in_place import InPlace
from lozo_bench.errors import UserError, bad_value
from lozo_bench.optimizers.base import Needs, Optimizer
from lozo_bench.optimizers.state import optimizer_state
from lozo_bench.randomness.draws import Draws
from lozo_bench.tasks.base import Source
from lozo_bench.training.checks import check_config, refuse_secrets, typed
from lozo_bench.tuning.base import Tuning
from lozo_bench.tuning.full import Full
from lozo_bench.tuning.two_level import TwoLevel


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run is made.

    Args:
        sources: read the rows of each task; the only task of a run has the name ''.
        tuning: says which parameters move.
        needs: of the optimizer; None: the run has none and only evaluates.
        full_states: whether full states are saved.
        allocation: what wraps the optimizer; None: nothing does.
    """

    sources: Mapping[str, Source]
    tuning: Tuning
    needs: Needs | None
    full_states: bool
    allocation: Allocation | None = None

    @property
    def replayable(self) -> bool:
        """Whether a run's steps can be made again from the recorded losses."""
        return self.needs is None or self.needs.replayable


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a sweep: its config, typed and as plain values, its folder, digest and plan."""

    config: Config
    plain: Mapping[str, Any]
    folder: Path
    digest: str
    plan: Plan


def plan_cell(raw: DictConfig, folder: Path) -> Cell:
    """Check the config of the run in ``folder``.

    Raises:
        UserError: a value is missing, unknown or out of range, two values do not go together, or
            the config contains a secret.
    """
    config, plain = typed(raw)
    refuse_secrets(plain)
    return Cell(config, plain, folder, digest(plain), plan_run(config))


def plan_run(config: Config) -> Plan:
    """Find everything that is wrong with a config before data or model are touched.

    Raises:
        UserError: a value is out of range, or two do not go together.
    """
    check_config(config)
    needs = _needs(config)
    sources = {name: _source(name, one) for name, one in task_configs(config).items()}
    tuning: Tuning = build(config.tuning, "tuning")
    allocation = _allocation(config)
    if allocation is not None and needs is not None:
        needs = allocation.needs(needs, tuning)
    _check_tuning(config, needs, tuning)
    if needs is None:
        return Plan(sources, tuning, None, full_states=False)
    kept = config.checkpoint.kind
    if not needs.replayable and kept is Kept.log:
        raise bad_value("checkpoint.kind", "log", "full or auto: gradients are not in a scalar log")
    if (needs.gradient or needs.features) and config.objective is Minimize.metric:
        raise bad_value("objective", "metric", "loss: a metric has no gradient")
    if needs.features and config.task.tasks:
        raise UserError("optimizer: a probe solves for the words of one task; give it a single one")
    if needs.features and config.loss is LossKind.hinge:
        raise bad_value("loss", "hinge", "cross_entropy: a probe solves a logistic regression")
    low_rank = needs.directions == "low_rank"
    if config.model.autocast is not None and low_rank and not config.engine.mode.writes_weights:
        allowed = "null with this optimizer, or engine.mode=in_place; or say model.dtype=bf16"
        raise bad_value("model.autocast", config.model.autocast, allowed)
    full = kept is Kept.full or (not needs.replayable and kept is Kept.auto)
    return Plan(sources, tuning, needs, full, allocation)


def _source(name: str, config: Config) -> Source:
    with in_task(name):
        source: Source = build(config.task.source, "task.source")
        require(source, "task.source", "splits")
    return source


def _needs(config: Config) -> Needs | None:
    """Return what the optimizer needs, found by making it without any weights."""
    if not config.optimizer:
        return None
    optimizer: Optimizer = build(config.optimizer, "optimizer", InPlace({}), Draws(0))
    require(optimizer, "optimizer", "needs", "step")
    optimizer_state(optimizer)  # refuses what a checkpoint could not keep
    return optimizer.needs


def _allocation(config: Config) -> Allocation | None:
    if not config.allocation:
        return None
    if not config.optimizer:
        name = config.allocation["_target_"].rpartition(".")[2]
        raise UserError(
            f"allocation: {name} is given; allowed without an optimizer: none, because nothing is "
            "trained"
        )
    allocation: Allocation = build(config.allocation, "allocation")
    return allocation


def _check_tuning(config: Config, needs: Needs | None, tuning: Tuning) -> None:
    """Refuse a tuning that does not go with the optimizer, or with none."""
    two_level = isinstance(tuning, TwoLevel)
    if two_level != (needs is not None and needs.two_level):
        name = config.optimizer["_target_"].rpartition(".")[2] if needs else "no optimizer"
        allowed = "other tunings" if two_level else "two_level_lora, two_level_prefix or the like"
        raise UserError(f"tuning: {type(tuning).__name__} is given; allowed with {name}: {allowed}")
    if needs is not None and not needs.features:
        return
    if needs is None and config.model.adapter is not None:
        return  # the adapter is evaluated as it was trained
    if not isinstance(tuning, Full):
        name = config.optimizer["_target_"].rpartition(".")[2] if needs else "no optimizer"
        raise UserError(f"tuning: {type(tuning).__name__} is given; allowed with {name}: full")
    if needs is not None and config.model.kind is Kind.classifier:
        raise bad_value("model.kind", "classifier", "causal or masked: a probe solves for words")
