"""What a run says about itself: its plan, the first block of its log, and its result."""

from __future__ import annotations

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
        parts.settings.steps,
        parts.settings.batch_size,
        ", ".join(f"{key}={value}" for key, value in config.optimizer.items() if key[0] != "_"),
    )
    warn_if_shared(device)


def result_of(cell: Cell, outcome: Outcome, parts: Parts, team: Team) -> dict[str, Any]:
    """What ``result.json`` says."""
    device, spent = parts.loaded.device, outcome.spent
    return {
        "status": "finished",
        "digest": cell.digest,
        "config": dict(cell.plain),
        "metrics": {
            name: dict(metrics.values)
            for name, metrics in {
                "zero_shot": outcome.zero_shot,
                "dev": outcome.dev,
                "test": outcome.test,
            }.items()
            if metrics is not None
        },
        "best_step": outcome.best_step,
        "steps": parts.settings.steps,
        "forwards": spent.forwards,
        "backwards": spent.backwards,
        "queries": spent.queries,
        "tokens": spent.tokens,
        "backward_tokens": spent.backward_tokens,
        "flops": provenance.flops(parts.loaded.model, spent.tokens, spent.backward_tokens),
        "bad_steps": spent.bad_steps,
        "sittings": spent.sittings,
        "train_s": round(spent.train_s, 3),
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
