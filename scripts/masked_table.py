"""Test accuracy (mean and std) of every method on real few-shot tasks with a small masked model.

    python scripts/pretrain_tiny.py --corpus CORPUS --out DIR
    python scripts/masked_table.py --model DIR/masked_real --kshot CORPUS/kshot --out OUT

For each split, dev accuracy selects a method's learning rate (the first of equals). The test rows
are evaluated once, at the end of each run. If the script is called again, it runs only what is
missing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from lozo_bench.config.schema import By, Pick
from lozo_bench.runs.outcome import RESULT
from lozo_bench.tables.choose import DevMetrics, select_points
from lozo_bench.tables.table import RunMetrics, read

TASKS = {"sst2_kshot": "SST-2", "trec_kshot": "trec", "snli_kshot": "SNLI"}
SEEDS = (13, 21, 42)
ZEROTH_ORDER = ("steps=500", "eval_every=50")
FIRST_ORDER = ("steps=100", "eval_every=10", "schedule=linear")


@dataclass(frozen=True)
class Row:
    """A row of the table: its title, the method, its learning rates and further overrides."""

    title: str
    method: str
    lrs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


ROWS = (
    Row("zero-shot", "zero_shot"),
    Row("LP", "lp"),
    Row("FT", "ft", ("1e-4", "3e-4", "1e-3"), FIRST_ORDER),
    Row("FT (LoRA)", "ft_lora", ("1e-3", "3e-3", "1e-2"), FIRST_ORDER),
    Row("FT (prefix)", "ft_prefix", ("1e-2", "3e-2", "1e-1"), FIRST_ORDER),
    Row("MeZO", "mezo", ("1e-4", "3e-4", "1e-3"), ZEROTH_ORDER),
    Row(
        "MeZO (LoRA)", "mezo_lora", ("3e-3", "1e-2", "3e-2"), (*ZEROTH_ORDER, "optimizer.eps=1e-3")
    ),
    Row(
        "MeZO (prefix)",
        "mezo_prefix",
        ("3e-1", "1", "3"),
        (*ZEROTH_ORDER, "optimizer.eps=1e-1"),
    ),
    Row("LOZO", "lozo", ("3e-5", "1e-4", "3e-4"), ZEROTH_ORDER),
    Row("LOZO-M", "lozo_m", ("3e-5", "1e-4", "3e-4"), ZEROTH_ORDER),
)


def main() -> int:
    """Run what is missing, print the table and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="the folder of a masked model")
    parser.add_argument(
        "--kshot", type=Path, required=True, help="the folder with LM-BFF's k-shot data"
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder for the runs")
    parser.add_argument(
        "--only-table", action="store_true", help="print the table without running anything"
    )
    given = parser.parse_args()
    for row in ROWS if not given.only_table else ():
        for task, folder in TASKS.items():
            code = subprocess.run(command(row, task, folder, given), check=False).returncode
            if code:
                return code
    print_table(given.out)
    return 0


def command(row: Row, task: str, folder: str, given: argparse.Namespace) -> list[str]:
    """Return the command that runs all learning rates and seeds of one cell of the table."""
    words = [sys.executable, "-m", "lozo_bench.train", "-m", f"method={row.method}", f"task={task}"]
    words += ["model=local", f"model.path={given.model.resolve()}"]
    words += ["batch_size=32", "tracking=files"]
    words.append(f"task.data_dir={given.kshot.resolve()}/{folder}/16-${{seed.value}}")
    words.append("seed=" + ",".join(f"s{seed}" for seed in SEEDS))
    words.append(f"hydra.sweep.dir={given.out.resolve()}/{row.method}")
    if row.lrs:
        words.append("optimizer.lr=" + ",".join(row.lrs))
    return [*words, *row.options]


def print_table(out: Path) -> None:
    """Print mean (std, number of splits) of the test accuracy, in percent."""
    print("| method | " + " | ".join(TASKS.values()) + " |")
    print("|---" * (1 + len(TASKS)) + "|")
    for row in ROWS:
        cells = [cell(out / row.method / task) for task in TASKS]
        print(f"| {row.title} | " + " | ".join(cells) + " |")


def cell(folder: Path) -> str:
    """Return the mean and population standard deviation of the selected runs as text."""
    runs: dict[str, dict[str, RunMetrics]] = defaultdict(dict)
    for path in sorted(folder.rglob(RESULT)):
        config = json.loads(path.read_text(encoding="utf-8"))["config"]
        runs[str(config["seed"]["value"])][str(config["optimizer"].get("lr", ""))] = found(path)
    tests = [chosen_test(by_lr) for by_lr in runs.values()]
    if not tests:
        return "-"
    return f"{statistics.mean(tests):.1f} ({statistics.pstdev(tests):.1f}, {len(tests)})"


def found(path: Path) -> RunMetrics:
    """Return the result of a run that has one."""
    result = read(path.parent)
    assert result is not None
    return result


def chosen_test(by_lr: dict[str, RunMetrics]) -> float:
    """Return the test accuracy, in percent, of the learning rate that dev accuracy selects."""
    ((lr, run), *others) = by_lr.items()
    if others:  # a method without learning rates has only one run, which may have no dev metrics
        seen = {lr: {"": dev_of(by_lr[lr])} for lr in sorted(by_lr, key=float)}
        lr = select_points(seen, [""], Pick.per_seed, By.dev_metric)[""]
        run = by_lr[lr]
    return 100 * run.test


def dev_of(run: RunMetrics) -> DevMetrics:
    """Return the dev metrics of a run that has some."""
    assert run.dev is not None
    return run.dev


if __name__ == "__main__":
    sys.exit(main())
