"""Compare estimates with runs on this CPU: peak memory and the time of a step.

python scripts/check_estimate.py --scratch DIR
python scripts/check_estimate.py --scratch DIR --shapes narrow,wide --optimizers lozo

Random OPT models of four shapes are written to DIR, with the tokenizer of the embedded model, and
rows of random words. Each is trained for a few steps with LOZO, MeZO and AdamW, in float32, each
run in a process of its own with one thread, and compared with what `estimate=true
estimate.card=cpu` prints. Times are seconds of the processor, so that other programs matter little.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
_WORDS = ("film", "food", "hotel", "song", "clever", "dull", "weak", "the", "was", "with", "plot")
_STEPS = 4
_ESTIMATE = """
import json, sys
from pathlib import Path
from hydra import compose
from lozo_bench.config.paths import CONF
from lozo_bench.estimate.cell import Estimator
from lozo_bench.launch.checks import check_cell
from lozo_bench.tables.cells import configs

with configs(CONF, Path(sys.argv[-1])):
    config = compose("config", sys.argv[1:-1], return_hydra_config=True)
    found = Estimator().estimate(check_cell(config, ["hydra.run.dir"]))
print(json.dumps([found.memory.peak, found.times.step_s, found.memory.terms]))
"""
_RUN = """
import json, sys, time
import lozo_bench
from lozo_bench.training.trainer import Trainer

make_step, seconds = Trainer._make_step, []

def timed(*arguments):
    began = time.process_time()
    make_step(*arguments)
    seconds.append(time.process_time() - began)

Trainer._make_step = timed
lozo_bench.run(sys.argv[1:-1], config_dir=sys.argv[-1])
print(json.dumps(seconds))
"""
_TASK = """# lozo-train task=made_up
name: made_up
data_dir: ???
source:
  _target_: lozo_bench.tasks.subsample.Subsample
  data_dir: ${..data_dir}
  hub: null
  files: {train: train, test: test}
  num_dev: 8
  fields: {text: text}
  label: label
  labels: [negative, positive]
prompt: "{text} It was"
options: [" terrible", " great"]
max_length: 256
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's sizes, and the words of its rows."""

    hidden: int
    layers: int
    ffn: int
    vocabulary: int
    words: tuple[int, int]


SHAPES = {
    "narrow": Shape(384, 12, 1536, 8000, (60, 120)),
    "wide": Shape(1536, 3, 6144, 8000, (8, 24)),
    "vocabulary": Shape(512, 4, 2048, 50272, (30, 60)),
    "opt_125m": Shape(768, 12, 3072, 50272, (8, 24)),
}
OPTIMIZERS = ("lozo", "mezo", "adamw")


def main() -> int:
    """Run, print a line for each run, and return 1 if an estimate is off by too much."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, required=True, help="a folder for models and runs")
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--optimizers", default=",".join(OPTIMIZERS))
    arguments = parser.parse_args()
    scratch = arguments.scratch.absolute()
    print(
        "| shape | optimizer | peak, est. | measured | ratio | s a step, est. | measured | ratio |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    bad = 0
    for name in arguments.shapes.split(","):
        _prepare(scratch, name, SHAPES[name])
        for optimizer in arguments.optimizers.split(","):
            bad += not _compare(scratch, name, optimizer)
    print(f"{bad} outside 10 % of the memory or a factor of 2 of the time")
    return int(bad > 0)


def _compare(scratch: Path, name: str, optimizer: str) -> bool:
    """Print a line; return whether memory is within 10 % and time within a factor of 2."""
    chosen = [
        *("task=made_up", f"task.data_dir={scratch / 'rows' / name}", f"optimizer={optimizer}"),
        *("model=local", f"model.path={scratch / 'models' / name}", "model.device=cpu"),
        *("tracking=files", "eval_every=2", "eval_batch_size=16", "checkpoint.every=1000"),
    ]
    peak, step_s = _estimated(scratch, chosen)
    measured_peak, measured_s = _measured(scratch, f"{name}-{optimizer}", chosen)
    memory, time = peak / measured_peak, step_s / measured_s
    print(
        f"| {name} | {optimizer} | {peak / 2**20:.0f} MiB | {measured_peak / 2**20:.0f} MiB "
        f"| {memory:.2f} | {step_s:.2f} | {measured_s:.2f} | {time:.2f} |",
        flush=True,
    )
    return abs(memory - 1) <= 0.1 and 0.5 <= time <= 2


def _estimated(scratch: Path, chosen: list[str]) -> tuple[float, float]:
    overrides = [*chosen, f"steps={_STEPS}", "estimate.card=cpu"]
    done = _python(["-c", _ESTIMATE, *overrides, str(scratch / "conf")])
    peak, step_s, _ = json.loads(done.stdout.splitlines()[-1])
    return peak, step_s


def _measured(scratch: Path, name: str, chosen: list[str]) -> tuple[float, float]:
    """Return a run's peak memory and the seconds of the processor in a step."""
    folder = scratch / "runs" / name
    shutil.rmtree(folder, ignore_errors=True)
    words = [*chosen, f"steps={_STEPS}", f"hydra.run.dir={folder}"]
    done = _python(["-c", _RUN, *words, str(scratch / "conf")])
    seconds = json.loads(done.stdout.splitlines()[-1])
    result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return result["peak_memory_bytes"], sorted(seconds)[len(seconds) // 2]


def _python(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise SystemExit(done.stderr or done.stdout)
    return done


def _prepare(scratch: Path, name: str, shape: Shape) -> None:
    """Write the model, its rows and the task."""
    task = scratch / "conf" / "task" / "made_up.yaml"
    task.parent.mkdir(parents=True, exist_ok=True)
    task.write_text(_TASK, encoding="utf-8")
    rng = random.Random(0)
    rows = scratch / "rows" / name
    rows.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 40), ("test", 16)):
        with (rows / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for i in range(count):
                text = " ".join(rng.choice(_WORDS) for _ in range(rng.randint(*shape.words)))
                writer.writerow([f"{text} .", ("negative", "positive")[i % 2]])
    folder = scratch / "models" / name
    if not folder.exists():
        _write_model(folder, shape)


def _write_model(folder: Path, shape: Shape) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, OPTConfig

    from lozo_bench.config.paths import EMBEDDED

    torch.manual_seed(0)
    config = OPTConfig.from_pretrained(
        EMBEDDED / "tiny_opt",
        hidden_size=shape.hidden,
        word_embed_proj_dim=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.hidden // 64,
        ffn_dim=shape.ffn,
        vocab_size=shape.vocabulary,
        max_position_embeddings=512,
    )
    auto: Any = AutoModelForCausalLM
    auto.from_config(config, dtype=torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(EMBEDDED / "tiny_opt").save_pretrained(folder)


if __name__ == "__main__":
    sys.exit(main())
