"""Folders of runs for the tests of the report, written without training."""

from __future__ import annotations

import json
import zlib

import yaml

TABLE = {
    "title": "OPT-13B, 1000 examples",
    "published": "lozo_opt13b",
    "rows": ["method"],
    "columns": ["task"],
    "over": "seed",
}


def row(step, loss, per_step=2, **more):
    spent = {"forward_passes": per_step * step, "backward_passes": 0, "queries": 16 * step}
    return {
        "step": step,
        "loss": loss,
        **spent,
        "tokens": 100 * step,
        "elapsed_s": step / 4,
        **more,
    }


def dev_row(step, accuracy, loss=0.5):
    return {"step": step, "dev_accuracy": accuracy, "dev_loss": loss}


ROWS = [row(1, 0.8), row(2, 0.6), dev_row(2, 0.75), row(3, 0.5), row(4, 0.4), dev_row(4, 0.5)]


def write_run(
    folder,
    method="lozo",
    seed=0,
    task="sst2",
    rows=ROWS,
    dev=0.75,
    test=0.5,
    failure=None,
    table=None,
    **given,
):
    """Write the folder of a run; without ``test`` it has no result."""
    name = f"{method}-r2-s{seed}-{zlib.crc32(repr((method, seed, task, given)).encode()):08x}"
    run = folder / task / "tiny" / given.pop("name", name)
    (run / ".hydra").mkdir(parents=True)
    config = {
        "task": {"name": task},
        "model": {"name": "tiny"},
        "optimizer": {"_target_": f"lozo_bench.optimizers.{method}.Class", "lr": 1e-3} | given,
        "seed": {"value": seed},
        "steps": 4,
        "table": table or {"title": ""},
    }
    overrides = [f"method={method}", f"task={task}", f"seed=s{seed}"]
    overrides += [f"optimizer.{key}={value}" for key, value in given.items()]
    hydra = {
        "overrides": {"task": overrides, "hydra": []},
        "mode": "MULTIRUN",
        "job": {"config_name": "config"},
        "runtime": {
            "cwd": str(folder),
            "config_sources": [],
            "choices": {"optimizer": method, "method": method, "tuned": "full/x", "task": task},
        },
    }
    (run / ".hydra/config.yaml").write_text(yaml.safe_dump(config))
    (run / ".hydra/hydra.yaml").write_text(yaml.safe_dump({"hydra": hydra}))
    (run / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (run / "train.log").write_text("step 0  zero_shot accuracy 0.5000\nthe end\n")
    if failure:
        record = {"reason": failure, "code": 2, "command": "lozo-train", "when": ""}
        (run / "failed.json").write_text(json.dumps(record))
    elif test is not None:
        sets = {"dev": {"accuracy": dev, "loss": 0.5}, "test": {"accuracy": test, "loss": 0.5}}
        result = {"status": "finished", "digest": "0123abcd", "config": config, "metrics": sets}
        cost = {"forwards": 8, "elapsed_s": 1800.0, "peak_memory_bytes": 2**30, "best_step": 2}
        where = {
            "device": "cuda:0 (a card)",
            "parallel": {"processes": 2},
            "versions": {"torch": "2"},
        }
        (run / "result.json").write_text(json.dumps(result | cost | where))
    return run
