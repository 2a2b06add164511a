"""Measure the rows per second of lozo-predict beside a plain batched loop with transformers.

python scripts/bench_predict.py --rows 10000 --repeats 3

Both score the same options of the same rows with the same model and batch size. The plain loop
reads the rows in their order, pads each batch, runs every option as a row of its own and computes
all logits, as a loop on a model's output does.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Sequence

import torch
from hydra import compose

from lozo_bench.config.paths import CONF
from lozo_bench.evaluation.answers import Answers
from lozo_bench.parallel.team import Team
from lozo_bench.tables.cells import configs
from lozo_bench.tasks.base import Encoded
from lozo_bench.training.build_run import BuiltRun, build_run
from lozo_bench.training.checks import typed
from lozo_bench.training.plan import plan_run


def main() -> None:
    """Time both ways in turn and print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="embedded:tiny_opt", help="a causal model")
    parser.add_argument("--task", default="reviews", help="an embedded task")
    arguments = parser.parse_args()
    built = _built(arguments.model, arguments.task, arguments.rows)
    rows = built.parts.data.test
    evaluator = built.parts.evaluators["test"]
    ours, plain = [], []
    for _ in range(arguments.repeats):
        began = time.perf_counter()
        answers = list(Answers(evaluator, rows, arguments.batch_size))
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        choices = _plain_choices(built, rows, arguments.batch_size)
        plain.append(time.perf_counter() - began)
    same = sum(a.choice == b for a, b in zip(answers, choices, strict=True))
    here, there = statistics.median(ours), statistics.median(plain)
    ratios = ", ".join(f"{b / a:.2f}" for a, b in zip(ours, plain, strict=True))
    print(f"{len(rows)} rows, equal choices: {same}")
    print(
        f"lozo-predict: {len(rows) / here:.0f} rows/s; plain loop: {len(rows) / there:.0f} rows/s"
    )
    print(f"times as fast, run by run: {ratios}; of the medians: {there / here:.2f}")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def _built(model: str, task: str, rows: int) -> BuiltRun:
    words = ["optimizer=zero_shot", "model=local", f"model.path={model}", f"task={task}"]
    with configs(CONF):
        config, _ = typed(compose("config", [*words, f"task.source.test={rows}"]))
    return build_run(config, plan_run(config), Team())


@torch.inference_mode()
def _plain_choices(built: BuiltRun, rows: Sequence[Encoded], batch_size: int) -> list[int]:
    """Return the option with the highest mean log-probability of each row."""
    model, pad = built.loaded.model, built.loaded.tokenizer.pad_token_id
    chosen: list[int] = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        texts = [tokens for row in batch for tokens in row.rows]
        answers = [at for row in batch for at in row.answer]
        width = max(map(len, texts))
        ids = torch.tensor([[*text, *[pad] * (width - len(text))] for text in texts])
        mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
        scores = model(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
        means = [
            sum(float(scores[n, i - 1, texts[n][i]]) for i in at) / len(at)
            for n, at in enumerate(answers)
        ]
        for row in batch:
            own, means = means[: len(row.rows)], means[len(row.rows) :]
            chosen.append(own.index(max(own)))
    return chosen


if __name__ == "__main__":
    main()
