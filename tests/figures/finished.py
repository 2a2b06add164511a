"""Finished runs for figures, written by hand: what a figure reads of them, and nothing else."""

from __future__ import annotations

import json

METRICS = {"dev": {"accuracy": 0.5, "loss": 0.7}, "test": {"accuracy": 0.75, "loss": 0.6}}
COSTS = {
    "peak_memory_bytes": 2**30, "train_s": 90.0, "step_ms_median": 250.0, "forwards": 4,
    "backwards": 2, "queries": 32,
}  # fmt: skip
ALLOCATION = {"groups": "q_proj v_proj", "layers": "0 0", "modules": "a b"}


def finish(run, number=0, **changed):
    """Write the files of a run: a result, losses, and all events that a figure can read."""
    run.folder.mkdir(parents=True, exist_ok=True)
    costs = {key: value * (1 + number / 10) for key, value in COSTS.items()}
    config = {"task": {"invented_rows": 6}, "batch_size": 3}
    result = {"metrics": METRICS, "config": config, **costs, **changed}
    (run.folder / "result.json").write_text(json.dumps(result))
    write(run.folder / "metrics.jsonl", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    spectra = [
        {"step": step, "event": "singular_values", "weight": f"layers.{layer}.q.weight", **values}
        for step in (1, 2)
        for layer, values in enumerate([{"values": "4 0.5 0"}, {"values": "3 0.2 0.1"}])
    ]
    enabled = [{"step": step, "event": "allocation", "enabled": "01"} for step in (1, 2)]
    write(run.folder / "events.jsonl", [{**enabled[0], **ALLOCATION}, enabled[1], *spectra])


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
