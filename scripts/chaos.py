"""Kill runs at random moments, let them go on, and compare them with runs that nothing disturbed.

python scripts/chaos.py --kills 100

Every optimizer in conf/optimizer takes part, with each kind of checkpoint it can have. A run is
killed with SIGKILL, which nothing can catch, and started again until it is finished, over and over
until the kills are used up. Then its weights, metrics, rows and logged scalars must be those of the
undisturbed run, bit for bit. Exit code 1 if anything differs.
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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

CONF = Path(__file__).resolve().parents[1] / "conf"
STEPLESS = ("icl", "linear_probe", "zero_shot")  # nothing in them to interrupt
# Many periods, evaluations and blocks in few steps; an evaluation falls on a kept state, or between
# two; the last batch of an epoch is short.
SHORT = [
    "steps=60", "eval_every=9", "log_every=3", "batch_size=6", "checkpoint.every=6",
    "task.source.train=40", "task.source.dev=24", "task.source.test=24", "tracking=files",
    "model.device=cpu",
]  # fmt: skip
COMPARED = ("metrics", "best_step", "forwards", "backwards", "tokens", "bad_steps", "weights")

context = multiprocessing.get_context("forkserver")
# A start asks after all processes that there are, and an exit code can be fetched only once: of two
# threads that do so together, one would be told 255.
asking = threading.Lock()


@dataclass(frozen=True, slots=True)
class Case:
    """An optimizer and a kind of checkpoint."""

    name: str
    overrides: tuple[str, ...]


@dataclass(slots=True)
class Tally:
    """What a case went through. ``sittings`` are those of each disturbed run that was compared."""

    kills: int
    sittings: list[int]
    differences: list[str]


def main() -> int:
    """Disturb every case; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="in all; shared out evenly")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--at-once", type=int, default=2, help="cases that run side by side")
    parser.add_argument("--only", help="optimizers whose name has this in it")
    parser.add_argument("overrides", nargs="*", help="for every run, such as engine.mode=in_place")
    args = parser.parse_args()
    chosen = [case for case in cases(args.overrides) if (args.only or "") in case.name]
    if not chosen:
        print(f"--only: no optimizer has {args.only!r} in its name", file=sys.stderr)
        return 2
    context.set_forkserver_preload(["lozo_bench.run"])
    os.environ["OMP_NUM_THREADS"] = "1"
    first = context.Process(target=int)  # the imports, which no run is to be timed with
    first.start()
    first.join()
    with tempfile.TemporaryDirectory() as folder:
        tallies = disturb_all(chosen, args.kills, args.seed, args.at_once, Path(folder))
    return report(tallies)


def cases(overrides: Sequence[str]) -> list[Case]:
    """Every optimizer that makes steps, with its own kind of checkpoint and with full states."""
    found = []
    for path in sorted((CONF / "optimizer").glob("*.yaml")):
        if path.stem in STEPLESS:
            continue
        options = [f"optimizer={path.stem}", *SHORT, *overrides]
        if "\nnu:" in path.read_text(encoding="utf-8"):
            options.append("optimizer.nu=9")
        for kind in ("auto", "full"):
            found.append(Case(f"{path.stem} ({kind})", (*options, f"checkpoint.kind={kind}")))
    return found


def disturb_all(
    chosen: Sequence[Case], kills: int, seed: int, at_once: int, folder: Path
) -> dict[str, Tally]:
    """Share the kills out and disturb every case."""
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


def disturb(case: Case, kills: int, chance: random.Random, folder: Path, advance: Any) -> Tally:
    """Kill runs of a case so many times, and compare each that got finished in spite of it."""
    quiet, disturbed = folder / "quiet", folder / "disturbed"
    begins, ends = timed(case, quiet)
    tally = Tally(0, [], [])
    while tally.kills < kills:
        shutil.rmtree(disturbed, ignore_errors=True)
        while not (disturbed / "result.json").exists() and tally.kills < kills:
            process = started(case, disturbed)
            # Mostly between first step and end, sometimes on the way there, sometimes too late.
            moment = chance.uniform(begins if chance.random() < 0.8 else 0, ends)
            if code_of(process, moment) is None:
                process.kill()
                tally.kills += 1
                advance()
            else:  # faster than the first: the machine is less busy than it was
                begins, ends = min(begins, 0.8 * moment), min(ends, moment)
            code_of(process)
        run_to_the_end(case, disturbed)
        compare(quiet, disturbed, tally)
    return tally


def timed(case: Case, folder: Path) -> tuple[float, float]:
    """Run without disturbance; seconds until the run begins to write, and until it ends."""
    began = time.monotonic()
    process = started(case, folder)
    while code_of(process, 0.005) is None and not (folder / "metrics.jsonl").exists():
        pass
    begins = time.monotonic() - began
    finish(case, folder, process)
    return begins, time.monotonic() - began


def run_to_the_end(case: Case, folder: Path) -> None:
    """Run, or go on, without disturbance."""
    finish(case, folder, started(case, folder))


def finish(case: Case, folder: Path, process: Any) -> None:
    """Wait for a run that should end well."""
    if (code := code_of(process)) != 0:
        tail = (folder / "log.txt").read_text(encoding="utf-8")[-2000:]
        raise RuntimeError(f"{case.name}: exit code {code}: {tail}")


def started(case: Case, folder: Path) -> Any:
    """A process of its own that runs the case in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    process = context.Process(target=cell, args=(case.overrides, folder))
    with asking:
        process.start()
    return process


def code_of(process: Any, at_most_s: float = math.inf) -> int | None:
    """The exit code of a process as soon as it ends; None if it goes on for longer than that."""
    end = time.monotonic() + at_most_s
    while True:
        with asking:
            code: int | None = process.exitcode
        if code is not None or time.monotonic() >= end:
            return code
        time.sleep(min(0.005, at_most_s))


def cell(overrides: Sequence[str], folder: Path) -> None:
    """What the process does: `lozo-train` without Hydra's folders."""
    import logging

    import hydra
    import torch
    from hydra.core.config_store import ConfigStore

    from lozo_bench.config import Config
    from lozo_bench.run import run_cell

    with (folder / "log.txt").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    logging.basicConfig(level=logging.INFO)
    torch.set_num_threads(1)
    ConfigStore.instance().store(name="schema", node=Config)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("config", list(overrides))
    sys.exit(run_cell(config, folder))


def compare(quiet: Path, disturbed: Path, tally: Tally) -> None:
    """Take down what differs between two finished runs, and how often the second was begun."""
    from lozo_bench.runs.journal import read

    results = [json.loads((path / "result.json").read_text()) for path in (quiet, disturbed)]
    tally.sittings.append(results[1]["sittings"])
    for key in COMPARED:
        if results[0][key] != results[1][key]:
            tally.differences.append(f"{key}: {results[0][key]} and {results[1][key]}")
    if rows(quiet) != rows(disturbed):
        tally.differences.append("rows of metrics.jsonl")
    logs = [read((path / "journal.bin").read_bytes()) for path in (quiet, disturbed)]
    told = [[[a.numpy().tobytes() for a in step] for step in log.steps] for log in logs]
    if told[0] != told[1]:
        tally.differences.append("scalars of journal.bin")


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, without the time."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "elapsed_s"} for line in lines]


def report(tallies: dict[str, Tally]) -> int:
    """Print the table; the exit code."""
    table = Table(title="killed and compared", title_justify="left")
    for column in ("optimizer (checkpoint)", "kills", "runs", "most sittings", "differences"):
        table.add_column(column)
    for name, tally in tallies.items():
        told = "; ".join(sorted(set(tally.differences))) or "none"
        most = str(max(tally.sittings, default=0))
        table.add_row(name, str(tally.kills), str(len(tally.sittings)), most, told)
    Console(width=120).print(table)
    kills = sum(tally.kills for tally in tallies.values())
    runs = sum(len(tally.sittings) for tally in tallies.values())
    bad = sum(bool(tally.differences) for tally in tallies.values())
    print(f"{kills} kills, {runs} runs compared, {bad} optimizers differ")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
