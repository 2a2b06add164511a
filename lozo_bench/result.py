"""What a run says about itself: its plan, the first block of its log, and its result."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lozo_bench import provenance
from lozo_bench.assemble import Parts
from lozo_bench.config import Config
from lozo_bench.contract import Outcome
from lozo_bench.models.devices import warn_if_shared
from lozo_bench.parallel.team import Team
from lozo_bench.runs.record import Past

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of choices: its config, typed and plain, its folder and its digest."""

    config: Config
    plain: Mapping[str, Any]
    folder: Path
    digest: str


def first_block(cell: Cell, past: Past, parts: Parts) -> dict[str, Any]:
    """What a log begins with; that of the log there is, if there is one."""
    device = provenance.device_name(parts.loaded.device)
    if past.header and past.header["device"] != device:
        log.warning(
            "the run began on %s and goes on on %s: the same to rounding",
            past.header["device"],
            device,
        )
    return dict(past.header) or {
        "digest": cell.digest,
        "device": device,
        "engine": parts.chosen.told(),
        # Findable, and yet another one for another sweep or a rerun.
        "wandb_id": f"{cell.digest}-{time.time_ns() // 10**6:x}",
        "versions": provenance.versions(),
    }


def log_plan(config: Config, parts: Parts) -> None:
    """Say what is about to be spent."""
    X, data, device = parts.X, parts.data, parts.loaded.device
    log.info(
        "%s on %s: %s parameters in %d tensors, %s, on %s",
        config.model.name,
        config.task.name,
        f"{sum(x.numel() for x in X.values()):,}",
        len(X),
        config.model.dtype.value,
        provenance.device_name(device),
    )
    log.info(
        "%d train, %d dev, %d test rows; %d steps of %d; options %s",
        len(data.train),
        len(data.dev),
        len(data.test),
        config.steps,
        config.batch_size,
        ", ".join(f"{key}={value}" for key, value in config.optimizer.items() if key[0] != "_"),
    )
    warn_if_shared(device)


def result_of(cell: Cell, outcome: Outcome, parts: Parts, team: Team) -> dict[str, Any]:
    """What ``result.json`` says."""
    device = parts.loaded.device
    return {
        "status": "finished",
        "digest": cell.digest,
        "config": dict(cell.plain),
        "metrics": {
            "zero_shot": dataclasses.asdict(outcome.zero_shot),
            "dev": dataclasses.asdict(outcome.dev),
            "test": dataclasses.asdict(outcome.test),
        },
        "best_step": outcome.best_step,
        "steps": cell.config.steps,
        "forwards": outcome.forwards,
        "backwards": outcome.backwards,
        "tokens": outcome.tokens,
        "bad_steps": outcome.bad_steps,
        "sittings": outcome.sittings,
        "weights": outcome.weights,
        "engine": parts.chosen.told(),
        "parallel": {"processes": team.size, "sent_bytes": team.sent_bytes},
        "step_ms_median": outcome.step_ms_median,
        "elapsed_s": round(outcome.elapsed_s, 3),
        "peak_memory_bytes": provenance.peak_memory_bytes(device),
        "device": provenance.device_name(device),
        "versions": provenance.versions(),
        "git": provenance.git_state(),
    }
