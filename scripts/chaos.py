"""Kill runs at random moments, resume them, and compare them with undisturbed runs.

python scripts/chaos.py --kills 100

The test covers every optimizer in conf/optimizer and every allocation in conf/allocation, each with
the kinds of checkpoint that it can have. A run is killed with SIGKILL, which no process can catch,
and started again until it is finished. This repeats until the kills are used up. The run's weights,
metrics, rows and recorded scalars must then equal those of the undisturbed run, bit for bit. Exit
code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

CONF = Path(__file__).resolve().parents[1] / "conf"
STEPLESS = ("icl", "linear_probe", "zero_shot")  # they make no steps that could be interrupted
# Many optimizer periods, evaluations and journal blocks in few steps. Evaluations fall on
# checkpoints as well as between them, and the last batch of an epoch is smaller.
SHORT = [
    "steps=60", "eval_every=9", "log_every=3", "batch_size=6", "checkpoint.every=6",
    "task.source.train=40", "task.source.dev=24", "task.source.test=24", "tracking=files",
    "model.device=cpu",
]  # fmt: skip
# Searches take their steps from a budget of calls: these are 30 turns, with populations of 8.
SEARCH = [
    "model=tiny_roberta", "optimizer.intrinsic_dim=8", "optimizer.popsize=8",
    "optimizer.budget=240",
]  # fmt: skip
TWO_LEVEL = ["tuning=two_level_lora"]
VARIANTS = {
    "bilevel_zofo": [*TWO_LEVEL, "optimizer.inner_steps=4"],
    "bilevel_zofo_multitask": [*TWO_LEVEL, "optimizer.inner_steps=3"],
    "bome": [*TWO_LEVEL, "optimizer.inner_steps=2"],
    "hybrid_zofo": TWO_LEVEL,
    "two_stage": [*TWO_LEVEL, "optimizer.directions=low_rank"],
    "f_lora": ["optimizer.variant=lotfwa"],  # it asks twice in a turn
    "bbt": ["tuning.tokens=5"],
    "bbt_v2": ["tuning.tokens=5"],
}
COMPARED = ("metrics", "best_step", "forwards", "backwards", "tokens", "bad_steps", "weights")

context = multiprocessing.get_context("forkserver")
# Starting a process polls all child processes, and an exit code can be fetched only once: if two
# threads did this at the same time, one of them would get 255.
poll_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Case:
    """An optimizer or an allocation with a kind of checkpoint."""

    name: str
    overrides: tuple[str, ...]


@dataclass(slots=True)
class Report:
    """The results of a case. ``sittings``: the number of attempts of each killed run compared."""

    kills: int
    sittings: list[int]
    differences: list[str]


def main() -> int:
    """Test every case and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kills", type=int, default=100, help="kills in total, divided evenly among the cases"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the times of the kills")
    parser.add_argument(
        "--at-once", type=int, default=2, help="number of cases that run at the same time"
    )
    parser.add_argument("--only", help="test only cases whose name contains this text")
    parser.add_argument(
        "overrides", nargs="*", help="overrides for every run, such as engine.mode=in_place"
    )
    args = parser.parse_args()
    chosen = [case for case in cases(args.overrides) if (args.only or "") in case.name]
    if not chosen:
        print(f"--only: no case's name contains {args.only!r}", file=sys.stderr)
        return 2
    context.set_forkserver_preload(["lozo_bench.launch.loaded"])
    os.environ["OMP_NUM_THREADS"] = "1"
    first = context.Process(target=int)  # import everything now, so that no run's time includes it
    first.start()
    first.join()
    with tempfile.TemporaryDirectory() as folder:
        results = disturb_all(chosen, args.kills, args.seed, args.at_once, Path(folder))
    return report(results)


def cases(overrides: Sequence[str]) -> list[Case]:
    """Return every optimizer that makes steps and every allocation, with both kinds of checkpoint.

    These are checkpoint.kind=auto and full.
    """
    found = list(_allocations(overrides))
    for path in sorted((CONF / "optimizer").glob("*.yaml")):
        if path.stem in STEPLESS:
            continue
        text = path.read_text(encoding="utf-8")
        options = [f"optimizer={path.stem}"]
        if "\nbudget:" in text:
            options = [f"method={path.stem}", *SEARCH]
        options += [*VARIANTS.get(path.stem, []), *SHORT, *overrides]
        if "\nnu:" in text:
            options.append("optimizer.nu=9")
        for kind in ("auto", "full"):
            found.append(Case(f"{path.stem} ({kind})", (*options, f"checkpoint.kind={kind}")))
    return found


def _allocations(overrides: Sequence[str]) -> Iterator[Case]:
    """Yield every allocation, with the tuning and the optimizer that its file's first line has."""
    for path in sorted((CONF / "allocation").glob("*.yaml")):
        if path.stem == "none":
            continue
        command = path.read_text(encoding="utf-8").partition("\n")[0]
        options = [word for word in command.split() if "=" in word]
        for kind in ("auto", "full"):
            values = (*options, *SHORT, *overrides, f"checkpoint.kind={kind}")
            yield Case(f"allocation={path.stem} ({kind})", values)


def disturb_all(
    chosen: Sequence[Case], kills: int, seed: int, at_once: int, folder: Path
) -> dict[str, Report]:
    """Divide the kills among the cases and test all of them."""
    shares = [kills // len(chosen) + (i < kills % len(chosen)) for i in range(len(chosen))]
    columns = TextColumn("kills"), MofNCompleteColumn(), TimeElapsedColumn()
    with (
        Progress(*columns, console=Console(stderr=True)) as progress,
        ThreadPoolExecutor(at_once) as pool,
    ):
        bar = progress.add_task("kills", total=kills)
        jobs = {
            case.name: pool.submit(
                disturb,
                case,
                share,
                random.Random(f"{seed}/{case.name}"),
                folder / str(i),
                lambda: progress.advance(bar),
            )
            for i, (case, share) in enumerate(zip(chosen, shares, strict=True))
        }
        return {name: job.result() for name, job in jobs.items()}


def disturb(case: Case, kills: int, chance: random.Random, folder: Path, advance: Any) -> Report:
    """Kill runs of a case ``kills`` times and compare each run that still finished."""
    undisturbed, disturbed = folder / "undisturbed", folder / "disturbed"
    begins, ends = timed(case, undisturbed)
    result = Report(0, [], [])
    while result.kills < kills:
        shutil.rmtree(disturbed, ignore_errors=True)
        while not (disturbed / "result.json").exists() and result.kills < kills:
            process = started(case, disturbed)
            # Mostly between the first step and the end, sometimes before, sometimes too late.
            moment = chance.uniform(begins if chance.random() < 0.8 else 0, ends)
            if code_of(process, moment) is None:
                process.kill()
                result.kills += 1
                advance()
            else:  # the run was faster than the undisturbed one: adjust the times
                begins, ends = min(begins, 0.8 * moment), min(ends, moment)
            code_of(process)
        run_to_the_end(case, disturbed)
        compare(undisturbed, disturbed, result)
    return result


def timed(case: Case, folder: Path) -> tuple[float, float]:
    """Run without kills; return the seconds until the run writes rows, and until it ends."""
    began = time.monotonic()
    process = started(case, folder)
    while code_of(process, 0.005) is None and not (folder / "metrics.jsonl").exists():
        pass
    begins = time.monotonic() - began
    finish(case, folder, process)
    return begins, time.monotonic() - began


def run_to_the_end(case: Case, folder: Path) -> None:
    """Start or resume a run and let it finish."""
    finish(case, folder, started(case, folder))


def finish(case: Case, folder: Path, process: Any) -> None:
    """Wait for a run that must finish without an error."""
    if (code := code_of(process)) != 0:
        tail = (folder / "log.txt").read_text(encoding="utf-8")[-2000:]
        raise RuntimeError(f"{case.name}: exit code {code}: {tail}")


def started(case: Case, folder: Path) -> Any:
    """Start a process that runs the case in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    process = context.Process(target=cell, args=(case.overrides, folder))
    with poll_lock:
        process.start()
    return process


def code_of(process: Any, at_most_s: float = math.inf) -> int | None:
    """Return the exit code of a process, or None if it is still running after ``at_most_s``."""
    end = time.monotonic() + at_most_s
    while True:
        with poll_lock:
            code: int | None = process.exitcode
        if code is not None or time.monotonic() >= end:
            return code
        time.sleep(min(0.005, at_most_s))


def cell(overrides: Sequence[str], folder: Path) -> None:
    """Run a cell in this process, as `lozo-train` does but without Hydra's folders."""
    import logging

    import hydra
    import torch
    from hydra.core.config_store import ConfigStore

    from lozo_bench.config.resolvers import register_resolver
    from lozo_bench.config.schema import Config
    from lozo_bench.training.run import run_cell

    with (folder / "log.txt").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    logging.basicConfig(level=logging.INFO)
    torch.set_num_threads(1)
    ConfigStore.instance().store(name="schema", node=Config)
    register_resolver()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("config", list(overrides))
    sys.exit(run_cell(config, folder))


def compare(undisturbed: Path, disturbed: Path, result: Report) -> None:
    """Record the differences between two finished runs, and the second one's attempts."""
    from lozo_bench.runs.journal import read

    results = [json.loads((path / "result.json").read_text()) for path in (undisturbed, disturbed)]
    result.sittings.append(results[1]["sittings"])
    for key in COMPARED:
        if results[0][key] != results[1][key]:
            result.differences.append(f"{key}: {results[0][key]} and {results[1][key]}")
    if rows(undisturbed) != rows(disturbed):
        result.differences.append("rows of metrics.jsonl")
    logs = [read((path / "journal.bin").read_bytes()) for path in (undisturbed, disturbed)]
    scalars = [[[a.numpy().tobytes() for a in step] for step in log.steps] for log in logs]
    if scalars[0] != scalars[1]:
        result.differences.append("scalars of journal.bin")


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl without the time."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "elapsed_s"} for line in lines]


def report(results: dict[str, Report]) -> int:
    """Print the table and return the exit code."""
    table = Table(title="killed runs compared with undisturbed runs", title_justify="left")
    for column in ("case (checkpoint)", "kills", "runs", "most attempts", "differences"):
        table.add_column(column)
    for name, result in results.items():
        differences = "; ".join(sorted(set(result.differences))) or "none"
        most = str(max(result.sittings, default=0))
        table.add_row(name, str(result.kills), str(len(result.sittings)), most, differences)
    Console(width=120).print(table)
    kills = sum(result.kills for result in results.values())
    runs = sum(len(result.sittings) for result in results.values())
    bad = sum(bool(result.differences) for result in results.values())
    print(f"{kills} kills, {runs} runs compared, {bad} cases differ")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
