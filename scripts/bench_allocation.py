"""Measure what an allocation adds to the time of first-order training.

python scripts/bench_allocation.py
python scripts/bench_allocation.py --layers 4 --hidden 256 --repeats 5 --out allocation_cpu.json

It times runs of one epoch of an OPT with random weights and LoRA on queries and values, in which
all modules are trained (uniform), or a quarter of them: chosen again and again by the gradients of
the training steps (online), or by scoring passes of their own (separate). The kinds of run take
turns, so that whatever else the machine does falls on all of them, and each time is divided by that
of the uniform run beside it. Lines of JSON say how many backward passes each kind made, and the
median and the quartiles of its time per step and of the ratio: in wall time, and in CPU time, which
other processes hardly change. Online reuses gradients that training computes, and saves those of
modules that are off.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

CONF = Path(__file__).resolve().parents[1] / "conf"
KINDS: Mapping[str, Sequence[str]] = {
    "uniform": ["allocation=none"],
    "online": ["allocation=grad_norm", "allocation.score=online"],
    "separate": ["allocation=grad_norm"],
}


@dataclass(frozen=True, slots=True)
class Made:
    """What an epoch took."""

    steps: int
    backwards: int
    wall_ms: float  # of a step
    cpu_ms: float


def main() -> None:
    """Run the measurement and print JSON lines."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = _model(folder / "model", arguments)
        _run(folder / "warm up", model, KINDS["online"], arguments, rows=2 * arguments.batch)
        found: dict[str, list[Made]] = {kind: [] for kind in KINDS}
        for repeat in range(arguments.repeats):
            for kind, options in KINDS.items():
                run = folder / f"{kind} {repeat}"
                found[kind].append(_run(run, model, options, arguments, arguments.rows))
    report = {kind: _report(runs, found["uniform"]) for kind, runs in found.items()}
    settings = {key: x for key, x in vars(arguments).items() if key != "out"}
    about = {"settings": settings, "load_before": load, "load_after": os.getloadavg()}
    for line in ({"kind": kind, **values} for kind, values in report.items()):
        print(json.dumps(line))
    print(json.dumps(about))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps({**about, "kinds": report}, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rows", type=int, default=3668, help="training rows; MRPC has 3668")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a JSON file for all numbers")
    return parser.parse_args()


def _model(folder: Path, arguments: argparse.Namespace) -> Path:
    """Save an OPT with random weights, and the embedded model's tokenizer beside it."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from lozo_bench.config.paths import EMBEDDED

    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED / "tiny_opt")
    config = AutoConfig.from_pretrained(
        EMBEDDED / "tiny_opt",
        num_hidden_layers=arguments.layers,
        hidden_size=arguments.hidden,
        word_embed_proj_dim=arguments.hidden,
        ffn_dim=4 * arguments.hidden,
        num_attention_heads=max(1, arguments.hidden // 64),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _run(
    folder: Path, model: Path, options: Sequence[str], arguments: argparse.Namespace, rows: int
) -> Made:
    """Make one epoch in this process."""
    import hydra
    from hydra.core.config_store import ConfigStore

    from lozo_bench.config.resolvers import register_resolver
    from lozo_bench.config.schema import Config
    from lozo_bench.training.run import run

    steps = -(-rows // arguments.batch)
    values = [
        "model=local", f"model.path={model}", "model.device=cpu", "task=entailment",
        f"task.source.train={rows}", "task.source.dev=8", "task.source.test=8",
        "optimizer=adamw", "optimizer.lr=1e-4", "tuning=gated_lora", f"tuning.r={arguments.rank}",
        f"batch_size={arguments.batch}", f"steps={steps}", f"eval_every={steps}",
        "log_every=100000", "checkpoint.every=100000", "tracking=files", *options,
    ]  # fmt: skip
    ConfigStore.instance().store(name="schema", node=Config)
    register_resolver()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("config", values)
    folder.mkdir()
    with _timed() as spent:
        result = run(config, folder)
    assert result is not None
    made = Made(steps, result["backwards"], *(1000 * x / steps for x in spent))
    print(f"{folder.name}: {made.wall_ms:.1f} ms per step", file=sys.stderr)
    return made


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Add up the seconds of all steps in this context: in wall time, and in CPU time."""
    from lozo_bench.training.trainer import Trainer

    spent, make_step = [0.0, 0.0], Trainer._make_step

    def timed(trainer: Trainer, *arguments: Any) -> None:
        began = time.perf_counter(), time.process_time()
        make_step(trainer, *arguments)
        spent[0] += time.perf_counter() - began[0]
        spent[1] += time.process_time() - began[1]

    with patch.object(Trainer, "_make_step", timed):
        yield spent


def _report(runs: Sequence[Made], uniform: Sequence[Made]) -> dict[str, Any]:
    pairs = list(zip(runs, uniform, strict=True))
    return {
        "steps": runs[0].steps,
        "backwards": runs[0].backwards,
        "wall_ms_per_step": _spread([run.wall_ms for run in runs]),
        "wall_ratio": _spread([a.wall_ms / b.wall_ms for a, b in pairs]),
        "cpu_ms_per_step": _spread([run.cpu_ms for run in runs]),
        "cpu_ratio": _spread([a.cpu_ms / b.cpu_ms for a, b in pairs]),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the quartiles."""
    low, middle, high = (
        statistics.quantiles(values, n=4, method="inclusive")
        if len(values) > 1
        else [values[0]] * 3
    )
    return {"median": round(middle, 4), "lower": round(low, 4), "upper": round(high, 4)}


if __name__ == "__main__":
    main()
