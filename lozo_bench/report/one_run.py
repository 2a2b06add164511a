"""What the page of one run shows: how it ended, its numbers, its cost and where it was made."""

from __future__ import annotations

import re
from typing import Any

from lozo_bench.report.contents import Contents, name_of, node_of
from lozo_bench.report.curves import drawn
from lozo_bench.report.tables_of_values import Environments, Figures, Values
from lozo_bench.runs.labels import Label
from lozo_bench.runs.untold import flat

# The entry of a result that has a cost, and that of a row, which has it so far, if there is one.
_COSTS = {
    "seconds": ("elapsed_s", "elapsed_s"),
    "train_seconds": ("train_s", ""),
    "forwards": ("forwards", "forward_passes"),
    "backwards": ("backwards", "backward_passes"),
    "queries": ("queries", "queries"),
    "tokens": ("tokens", "tokens"),
    "flops": ("flops", ""),
    "memory": ("peak_memory_bytes", ""),
    "step_ms": ("step_ms_median", ""),
    "bad_steps": ("bad_steps", "bad_steps"),
    "sittings": ("sittings", ""),
}
_SECONDS_OF_HOUR = 3600
_NODES = ("task", "model")  # they have a place of their own beside the label
_DETAILS = ("device", "versions", "git", "engine", "parallel")


def record(
    run: Contents, label: Label, name: str, values: Values, where: Environments, figures: Figures
) -> dict[str, Any]:
    """Return all that the page shows of a run, as plain values.

    Args:
        run: what its folder holds.
        label: what it is called among the runs of its sweep.
        name: its folder, relative to that of the sweep.
        values: where its config is kept, once for all runs.
        where: where its environment is kept.
        figures: where its pictures are kept.
    """
    config = run.result.config
    progress = re.match(r"step (\d+) of (\d+)", run.cell.note)
    known = run.result.values or run.header
    return {
        "name": name,
        "folder": str(run.folder),
        "method": label.method,
        "label": " ".join(f"{key}={x}" for key, x in label.values.items() if key not in _NODES),
        "task": name_of(config, "task"),
        "model": name_of(config, "model"),
        "seed": node_of(config, "seed").get("value"),
        "state": run.cell.state.value,
        "note": run.cell.note,
        "progress": [int(number) for number in progress.groups()] if progress else None,
        "command": run.cell.command,
        "given": [f"{key}={value}" for key, value in run.given.items()],
        "values_from": run.values_from,
        "metrics": run.result.metrics,
        "best_step": run.result.values.get("best_step"),
        "steps": known.get("steps", config.get("steps")),
        "digest": known.get("digest"),
        "cost": costs(run),
        "config": values.add(flat(config)),
        "environment": where.add({key: known[key] for key in _DETAILS if known.get(key)}),
        "curves": drawn(run.curves),
        "figures": figures.of(run.folder),
        "log": list(run.log),
        "problems": list(run.problems),
    }


def costs(run: Contents) -> dict[str, Any]:
    """Return what a run has cost, so far if it is not finished; what is not known is left out."""
    result = run.result.values
    found = {
        name: result[key] if key in result else run.last.get(of_row)
        for name, (key, of_row) in _COSTS.items()
        if key in result or (of_row and of_row in run.last)
    }
    device = str(result.get("device") or run.header.get("device") or "")
    processes = (result.get("parallel") or {}).get("processes", 1)
    if device.startswith("cuda") and "seconds" in found:
        found["gpu_hours"] = found["seconds"] * processes / _SECONDS_OF_HOUR
    if result.get("peak_memory_of") == "process":
        found["memory_of_process"] = True
    return {key: value for key, value in found.items() if value is not None}
