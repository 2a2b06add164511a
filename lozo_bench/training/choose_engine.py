"""Choose a run's engine: the config's, or the one that is faster on the run's first batch.

All processes and attempts of a run have the same one, because another engine rounds in another way.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from lozo_bench.config.schema import EngineConfig, EngineMode
from lozo_bench.engine.fold import Folder
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import Engine, MicroBatch
from lozo_bench.engine.select import measure_fastest
from lozo_bench.engine.tensors import is_half
from lozo_bench.engine.terms import Extras
from lozo_bench.optimizers.base import Needs
from lozo_bench.parallel.team import Team
from lozo_bench.randomness.draws import Draws

log = logging.getLogger(__name__)

_DIRECTIONS = {
    "low_rank": "low-rank directions",
    "full_rank": "full-rank directions",
    None: "gradients",
}


@dataclass(frozen=True, slots=True)
class ChosenEngine:
    """An engine, and what the run records about it."""

    engine: Engine
    mode: EngineMode
    candidates_per_forward: int | None
    measured_ms: Mapping[str, float]

    def describe(self) -> dict[str, Any]:
        """Return what result.json and the journal record about the engine."""
        return {
            "mode": self.mode.value,
            "candidates_per_forward": self.candidates_per_forward,
            "measured_ms": dict(self.measured_ms),
        }


def choose_engine(
    config: EngineConfig,
    model: nn.Module,
    X: Mapping[str, Tensor],
    needs: Needs,
    draws: Draws,
    rank: int,
    first_batch: Callable[[], Sequence[MicroBatch]],
    written_in_place: bool = False,
    extras: Extras | None = None,
) -> ChosenEngine:
    """Return the engine for an optimizer's directions.

    Full-rank directions can only be scored in place, and gradients are taken there, whatever the
    mode is. If only a few of many weights move (``written_in_place``), they are moved in place too,
    because that costs next to nothing. ``first_batch`` is called only to measure.
    """
    published = config.mode is EngineMode.published

    def in_place(measured_ms: Mapping[str, float]) -> ChosenEngine:
        engine = InPlace(X, model, extras, config.reuse_prefix, config.keep_z, not published)
        mode = EngineMode.published if published else EngineMode.in_place
        return ChosenEngine(engine, mode, None, measured_ms)

    low_rank = needs.directions == "low_rank"
    if not low_rank or written_in_place or config.mode.writes_weights:
        if needs.directions or needs.gradient:
            log.info("engine: in place (%s)", _DIRECTIONS[needs.directions])
        return in_place({})
    half = any(is_half(x.dtype) for x in X.values())
    fused = Fused(
        model,
        X,
        Folder(config.rounding.value, draws),
        max_rank=config.max_rank if half else 0,
        per_forward=config.candidates_per_forward,
        extras=extras,
        reuse_prefix=config.reuse_prefix,
        graphs=config.graphs,
    )
    if config.mode is EngineMode.fused:
        return ChosenEngine(fused, EngineMode.fused, config.candidates_per_forward, {})
    choice = measure_fastest(fused, rank, first_batch())
    log.info(
        "engine.mode=auto: %s; a step is %s",
        "in_place" if choice.in_place else "fused",
        ", ".join(f"{ms:.1f} ms {name}" for name, ms in choice.ms.items()),
    )
    if choice.in_place:
        return in_place(choice.ms)
    if config.candidates_per_forward is None:
        fused.per_forward = choice.per_forward
    return ChosenEngine(fused, EngineMode.fused, fused.per_forward, choice.ms)


def agreed_engine(
    config: EngineConfig,
    choose: Callable[[EngineConfig], ChosenEngine],
    team: Team,
    recorded: Mapping[str, Any] | None,
) -> ChosenEngine:
    """Return the same engine in all processes and attempts of a run.

    Args:
        config: of the engine.
        choose: chooses one by a config. It measures in the first process of the first attempt only.
        team: the processes of the run.
        recorded: what an earlier attempt recorded about its engine; None: this is the first one.
    """
    if recorded is None and team.rank == 0:
        chosen = choose(config)
        team.from_first(json.dumps(chosen.describe()).encode())
        return chosen
    recorded = recorded or json.loads(team.from_first(b""))
    return choose(_as_recorded(config, recorded))


def _as_recorded(config: EngineConfig, recorded: Mapping[str, Any]) -> EngineConfig:
    """Return the engine's config with the choices that were made when the run began."""
    if config.mode is not EngineMode.auto:
        return config
    return replace(
        config,
        mode=EngineMode[recorded["mode"]],
        candidates_per_forward=recorded["candidates_per_forward"],
    )
