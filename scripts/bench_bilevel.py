"""Measure Bilevel-ZOFO beside first-order LoRA: peak memory, and the time of an outer iteration.

python scripts/bench_bilevel.py --hidden 256 --layers 4

Memory: a fresh process each makes steps of AdamW on LoRA, and whole outer iterations of
Bilevel-ZOFO on the same batches; torch's allocations are traced. Time: an outer iteration is
timed beside as many plain forward passes, and forward and backward passes, as it counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import nn
from transformers import OPTConfig, OPTForCausalLM

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that a checkout works without an installed lozo_bench

from bench.memory import peak_on_cpu  # noqa: E402

from lozo_bench.config.build import build  # noqa: E402
from lozo_bench.config.schema import Kind  # noqa: E402
from lozo_bench.engine.in_place import InPlace  # noqa: E402
from lozo_bench.engine.protocol import MicroBatch, ScoredBatch  # noqa: E402
from lozo_bench.engine.score import Score  # noqa: E402
from lozo_bench.models.load import Loaded  # noqa: E402
from lozo_bench.optimizers.adamw import AdamW  # noqa: E402
from lozo_bench.optimizers.base import Optimizer  # noqa: E402
from lozo_bench.randomness.draws import Draws  # noqa: E402
from lozo_bench.tuning.base import Tuned  # noqa: E402

LORA = {
    "_target_": "lozo_bench.tuning.lora.Lora", "r": 8, "alpha": 16.0,
    "targets": r"\.(q_proj|v_proj)$",
}  # fmt: skip
TWO_LEVEL = {"_target_": "lozo_bench.tuning.two_level.TwoLevel", "adapter": LORA}
BILEVEL = {
    "_target_": "lozo_bench.optimizers.bilevel_zofo.BilevelZofo", "lr": 1e-7, "lr_p": 1e-4,
    "lr_s": 1e-4, "lambda_": 1.0, "eps": 1e-3, "fd": "forward", "directions": "full_rank",
    "rank": 2, "nu": 50, "barrier": None, "reset_s": "never", "eval_with": "both",
    "upper_rows": 0.334, "tasks": [], "tasks_per_step": None, "step_counting": "outer",
    "total_steps": 1000, "dropout": False, "autocast": None, "max_grad_norm": 1.0,
}  # fmt: skip


class Bench:
    """A random model, one of the two methods on it, and the batch of all steps."""

    def __init__(self, given: argparse.Namespace, method: str) -> None:
        torch.manual_seed(0)
        self.T = given.inner_steps
        self.ids = torch.randint(4, given.vocab, (given.rows, given.tokens))
        model = OPTForCausalLM(_config(given)).train(mode=False)
        loaded = Loaded(model, None, "random", Kind.causal, torch.device("cpu"))  # type: ignore[arg-type]
        tuning = build(LORA if method == "adamw" else TWO_LEVEL, "tuning")
        self.tuned: Tuned = tuning.tune(loaded, Draws(0))
        self.engine = InPlace(self.tuned.X, self.tuned.model, self.tuned.extras)
        if method == "adamw":
            self.optimizer: Optimizer = AdamW(
                self.engine, Draws(0), lr=1e-4, autocast=None, dropout=False
            )
        else:
            options = BILEVEL | {"inner_steps": self.T, "upper": method}
            self.optimizer = build(options, "optimizer", self.engine, Draws(0))

    def losses(self) -> torch.Tensor:
        """Return the mean loss of each row's tokens."""
        logits = self.tuned.model(self.ids, use_cache=False).logits[:, :-1]
        found = nn.functional.cross_entropy(logits.mT, self.ids[:, 1:], reduction="none")
        return found.mean(1)

    def part(self) -> MicroBatch:
        """Return the batch."""
        return MicroBatch(len(self.ids), self.ids.numel(), lambda copies: self.losses()[None])

    def step(self) -> None:
        """Make a step; all its batches are the same."""
        self.optimizer.step(
            Score(self.engine, [self.part()], streams=lambda name: ScoredBatch([self.part()]))
        )

    def iteration(self) -> None:
        """Make T lower steps and an upper one, or as many steps of AdamW."""
        for _ in range(self.T + 1):
            self.step()

    def two_iterations(self) -> None:
        """Make two of them: moments exist after the first one."""
        self.iteration()
        self.iteration()

    def counted(self) -> None:
        """Make the plain passes that an outer iteration counts: T + 2 back, and 4 only forward."""
        for _ in range(self.T + 2):
            torch.autograd.backward(self.losses().mean())
        with torch.inference_mode():
            for _ in range(4):
                self.losses()


def main() -> None:
    """Print lines of JSON: the peaks and their ratios, and the times and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for key, default in {
        "layers": 4, "hidden": 256, "vocab": 2000, "rows": 8, "tokens": 64, "inner_steps": 10,
        "repeats": 7, "threads": 1,
    }.items():  # fmt: skip
        parser.add_argument(f"--{key.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--peak-of", choices=("adamw", "sgd", "adam"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.peak_of:
        bench = Bench(given, given.peak_of)
        print(peak_on_cpu(bench.two_iterations))
        return
    peaks = {method: _peak(method) for method in ("adamw", "sgd", "adam")}
    print(json.dumps({"peak_bytes": peaks, "sgd_by_adamw": peaks["sgd"] / peaks["adamw"]}))
    times = _times(Bench(given, "sgd"), given.repeats)
    ratios = sorted(a / b for a, b in zip(times["iteration"], times["counted"], strict=True))
    medians = {key: median(values) for key, values in times.items()}
    spread = {"median": median(ratios), "lowest": ratios[0], "highest": ratios[-1]}
    print(json.dumps({"seconds": medians, "iteration_by_counted": spread, "load": os.getloadavg()}))


def _config(given: argparse.Namespace) -> OPTConfig:
    return OPTConfig(
        vocab_size=given.vocab,
        hidden_size=given.hidden,
        word_embed_proj_dim=given.hidden,
        ffn_dim=4 * given.hidden,
        num_hidden_layers=given.layers,
        num_attention_heads=max(1, given.hidden // 64),
        max_position_embeddings=given.tokens + 2,
        dropout=0.0,
    )


def _peak(method: str) -> int:
    """Return the bytes that a fresh process allocates at most, from a bare model on."""
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", method]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _times(bench: Bench, repeats: int) -> dict[str, list[float]]:
    """Return the CPU seconds of an iteration and of the passes that it counts, in turns."""
    ways: dict[str, Callable[[], None]] = {"iteration": bench.iteration, "counted": bench.counted}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, run in ways.items():
            began = time.process_time()
            run()
            if repeat:  # the first one warms up
                times[name].append(time.process_time() - began)
    return times


if __name__ == "__main__":
    main()
