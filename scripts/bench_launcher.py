"""Measures what hydra/launcher=local adds to the time of a cell by running it in a new process.

    python scripts/bench_launcher.py --cells 200

A sweep of short cells runs once through the launcher and once as a loop in one process. The first
cell of the loop, which waits for the import of torch, is left out. The overhead per cell is the
time of the whole sweep, including its start, divided by the number of cells, minus a cell's time in
the loop.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore

from lozo_bench.config.paths import CONF
from lozo_bench.config.resolvers import register_resolver
from lozo_bench.config.schema import Config

SHORT = [
    "experiment=smoke", "steps=1", "eval_every=1", "task.source.train=32", "task.source.dev=8",
    "task.source.test=8",
]  # fmt: skip
TARGET_S = 1.0


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds for the whole sweep, until the first cell was finished, and for each later cell."""

    whole: float
    first: float
    each: float


def sweep(folder: Path, cells: int, overrides: list[str]) -> Times:
    """Run the sweep through the launcher, one cell at a time."""
    command = [
        sys.executable, "-m", "lozo_bench.train", "-m", "hydra/launcher=local",
        f"seed.value=range(0,{cells})", *overrides,
    ]  # fmt: skip
    before = time.time()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    end = time.time()
    results = [path.stat().st_mtime for path in folder.rglob("result.json")]
    if len(results) != cells:
        raise SystemExit(f"{folder}: {len(results)} of {cells} cells have a result")
    return Times(end - before, min(results) - before, (end - min(results)) / (cells - 1))


def loop(folder: Path, cells: int, overrides: list[str]) -> Times:
    """Run the same cells in this process, without Hydra's files and logs."""
    ConfigStore.instance().store(name="schema", node=Config)
    register_resolver()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        configs = [compose("config", [f"seed.value={seed}", *overrides]) for seed in range(cells)]
    began = time.perf_counter()
    from lozo_bench.training.run import run_cell

    ends = []
    for number, config in enumerate(configs):
        cell = folder / str(number)
        cell.mkdir()
        if run_cell(config, cell):
            raise SystemExit(f"cell {number} did not finish")
        ends.append(time.perf_counter())
    return Times(ends[-1] - began, ends[0] - began, (ends[-1] - ends[0]) / (cells - 1))


def main() -> None:
    """Run both and print the overhead. Exit code 1 if it is more than `TARGET_S` per cell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument(
        "overrides", nargs="*", help="overrides for every cell, e.g. tracking=wandb"
    )
    given = parser.parse_args()
    if given.cells < 2:
        parser.error("--cells: must be at least 2, because the first cell is left out")
    overrides = [*SHORT, *given.overrides]
    folder = Path(tempfile.mkdtemp(prefix="bench_launcher-"))
    try:
        (folder / "loop").mkdir()
        launched = sweep(folder, given.cells, overrides)
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            alone = loop(folder / "loop", given.cells, overrides)
    finally:
        shutil.rmtree(folder)
    overhead = launched.whole / given.cells - alone.each
    print(f"cells                         {given.cells}")
    print(f"the whole sweep               {launched.whole:.2f} s")
    print(f"first cell, sweep             {launched.first:.2f} s")
    print(f"each after it, sweep          {launched.each:.3f} s")
    print(f"each after it, in one process {alone.each:.3f} s")
    print(f"overhead per cell             {overhead:.3f} s (target: at most {TARGET_S:.0f} s)")
    sys.exit(int(overhead > TARGET_S))


if __name__ == "__main__":
    main()
