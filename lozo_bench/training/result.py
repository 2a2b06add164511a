"""What a run writes about itself: its plan, the header of its journal, and its result."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from lozo_bench.config.schema import Config, Mix
from lozo_bench.display.trackers.base import About
from lozo_bench.evaluation.evaluate import Metrics
from lozo_bench.models.devices import warn_if_shared
from lozo_bench.parallel.team import Team
from lozo_bench.runs import provenance
from lozo_bench.runs.history import History
from lozo_bench.runs.hydra_files import files_chosen
from lozo_bench.runs.labels import file_of, method_of
from lozo_bench.training.build_run import BuiltRun
from lozo_bench.training.interfaces import Outcome
from lozo_bench.training.plan import Cell

log = logging.getLogger(__name__)
_LONGEST_TAG = 64  # characters that wandb allows


def journal_header(
    cell: Cell, past: History, built: BuiltRun, files: Mapping[str, str]
) -> dict[str, Any]:
    """Return the header of a new journal, or that of the journal that an earlier attempt began."""
    device = provenance.device_name(built.loaded.device)
    if past.header:
        if past.header["device"] != device:
            log.warning(
                "the run began on %s and continues on %s: the numbers are the same to rounding",
                past.header["device"],
                device,
            )
        return dict(past.header)
    start = {} if built.start is None else {"start": built.start}
    return {
        **start,
        "digest": cell.digest,
        "device": device,
        "engine": built.chosen.describe(),
        # wandb's run can be found by the digest, and is another one for another sweep or a rerun.
        "wandb_id": f"{cell.digest}-{time.time_ns() // 10**6:x}",
        "versions": provenance.versions(),
        "config": dict(cell.plain),
        "steps": built.parts.settings.steps,
        "files": dict(files),
    }


def log_plan(config: Config, built: BuiltRun) -> None:
    """Log what the run is about to do."""
    data, device = built.parts.data, built.loaded.device
    options = ", ".join(f"{key}={x}" for key, x in config.optimizer.items() if key[0] != "_")
    log.info(
        "%s on %s: %s parameters in %d tensors, %s, on %s",
        config.model.name,
        config.task.name,
        f"{sum(x.numel() for x in built.X.values()):,}",
        len(built.X),
        config.model.dtype.value,
        provenance.device_name(device),
    )
    rows = f"{len(data.train)} train, {len(data.dev)} dev, {len(data.test)} test rows"
    steps, size = built.parts.settings.steps, built.parts.rows.sizes()[""][1]
    log.info(
        f"{rows}; {steps} steps of {size}; options {options}" if steps else f"{rows}; no steps"
    )
    if config.task.tasks and config.task.mix is not Mix.rows and not built.parts.rows.mixed:
        log.info(
            "task.mix=%s has no effect: this method takes a batch of each task by itself",
            config.task.mix.value,
        )
    warn_if_shared(device)


def result_of(
    cell: Cell, outcome: Outcome, built: BuiltRun, team: Team, peak_of: str
) -> dict[str, Any]:
    """Return what ``result.json`` holds; ``peak_of`` says whose peak memory is known."""
    device, spent = built.loaded.device, outcome.spent
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
        "steps": outcome.steps,
        **({"stopped_early": outcome.stopped_by} if outcome.stopped_by else {}),
        "forwards": spent.forwards,
        "backwards": spent.backwards,
        "queries": spent.queries,
        "backward_queries": spent.backward_queries,
        "tokens": spent.tokens,
        "backward_tokens": spent.backward_tokens,
        "flops": provenance.flops(built.loaded.model, spent.tokens, spent.backward_tokens),
        "bad_steps": spent.bad_steps,
        "bad_candidates": spent.bad_candidates,
        "sittings": spent.sittings,
        "train_s": round(spent.train_s, 3),
        "weights": outcome.weights,
        "engine": built.chosen.describe(),
        "parallel": {"processes": team.size, "sent_bytes": team.sent_bytes},
        "step_ms_median": outcome.step_ms_median,
        "elapsed_s": round(outcome.elapsed_s, 3),
        "peak_memory_bytes": provenance.peak_memory_bytes(device),
        "peak_memory_of": peak_of,
        "device": provenance.device_name(device),
        "versions": provenance.versions(),
        "git": provenance.git_state(),
    }


def summary_of(result: Mapping[str, Any], outcome: Outcome) -> dict[str, float]:
    """Return the final numbers of a run that trackers show in their tables of runs."""
    summary: dict[str, float] = {"best_step": outcome.best_step}
    for name in ("zero_shot", "dev", "test"):
        metrics: Metrics | None = getattr(outcome, name)
        if metrics is not None:
            summary[f"{'best_dev' if name == 'dev' else name}/{metrics.name}"] = metrics.main
    keys = ("forwards", "backwards", "queries", "tokens", "flops", "train_s", "elapsed_s")
    for key in (*keys, "peak_memory_bytes", "step_ms_median"):
        if result[key] is not None:
            summary[key] = result[key]
    return summary


def about_run(cell: Cell, name: str, run_id: str) -> About:
    """Return what trackers are told: the config with the names of what was chosen, and tags."""
    tracking, config = cell.config.tracking, dict(cell.plain)
    method = method_of(cell.folder, config)
    chosen = files_chosen(cell.folder)
    for group in ("optimizer", "tuning"):
        config[group] = {"name": chosen.get(group) or file_of(config[group]), **config[group]}
    tags = dict.fromkeys([*tracking.tags, method, cell.config.task.name, cell.config.model.name])
    return About(
        folder=cell.folder,
        config={"method": method, **config},
        name=name,
        run_id=run_id,
        tags=tuple(tag[:_LONGEST_TAG] for tag in tags if tag),
        group=tracking.group,
    )
