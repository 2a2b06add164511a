"""Looks for leaks: memory, open files, threads and leftover files, over many steps and many cells.

    python scripts/leaks.py --steps 2000 --cells 40

One run of tiny_opt makes all the steps, and a sweep runs its cells one after another; both in this
process. It prints a JSON line for each sample, and one for each part that says what grew between
its first quarter and its end. The exit code is 1 if anything did, or the memory by more than
--allowed-mib.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore

from lozo_bench import train
from lozo_bench.config.paths import CONF
from lozo_bench.config.resolvers import register_resolver
from lozo_bench.config.schema import Config
from lozo_bench.training import run as run_module

TINY = [
    "model.device=cpu", "tracking=files", "batch_size=4", "task.source.train=32",
    "task.source.dev=8", "task.source.test=8",
]  # fmt: skip
COUNTED = ("fds", "threads", "leftovers")
_UNFINISHED = ("*.partial", ".tmp*", ".lock-*", "lock", "lock.*")


class Samples:
    """What this process holds, measured again and again.

    Args:
        part: what is measured, ``steps`` or ``cells``.
        temporary: the folder for temporary files.
        outputs: the folder of the runs.
        show: receives each line.
    """

    def __init__(
        self, part: str, temporary: Path, outputs: Path, show: Callable[[str], object]
    ) -> None:
        self.part, self.temporary, self.outputs, self._show = part, temporary, outputs, show
        self.taken: list[dict[str, float]] = []

    def take(self, at: int, running: bool) -> None:
        """Measure after ``at`` steps or cells; while a run goes on, its lock is no leftover."""
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        sample = {
            "at": at,
            "rss_mib": round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1),
            "fds": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
            "threads": threading.active_count(),
            "leftovers": self._leftovers(running),
        }
        self.taken.append(sample)
        self._show(json.dumps({"of": self.part, **sample}))

    def grew(self) -> dict[str, float]:
        """Return how much each number grew from the first quarter to the end."""
        first, last = self.taken[len(self.taken) // 4], self.taken[-1]
        return {key: round(last[key] - first[key], 1) for key in ("rss_mib", *COUNTED)}

    def _leftovers(self, running: bool) -> int:
        found = [path for name in _UNFINISHED for path in self.outputs.rglob(name)]
        return len(found) - running + len(list(self.temporary.iterdir()))


def many_steps(samples: Samples, steps: int) -> None:
    """Make one long run, and measure 20 times."""
    every = max(1, steps // 20)
    overrides = [f"steps={steps}", f"log_every={every}", f"eval_every={every}", *TINY]
    register_resolver()
    ConfigStore.instance().store(name="schema", node=Config)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides)
    folder = samples.outputs / "steps"
    folder.mkdir()
    metrics, size = folder / "metrics.jsonl", 0

    def check() -> None:
        nonlocal size
        now = metrics.stat().st_size if metrics.exists() else 0
        if now > size:
            size = now
            row = json.loads(metrics.read_text(encoding="utf-8").splitlines()[-1])
            if "loss" in row:
                samples.take(int(row["step"]), running=True)

    run_module.run(config, folder, check)


def many_cells(samples: Samples, cells: int) -> None:
    """Run a sweep in this process, and measure after each cell."""
    run_cell, ended = run_module.run_cell, 0

    def sampled(*arguments: object) -> object:
        nonlocal ended
        code = run_cell(*arguments)  # type: ignore[arg-type]
        ended += 1
        samples.take(ended, running=False)
        return code

    run_module.run_cell = sampled  # type: ignore[assignment]
    sys.argv[1:] = [
        "-m", f"seed.value=range(0,{cells})", "steps=2", "eval_every=2",
        f"hydra.sweep.dir={samples.outputs / 'cells'}", *TINY,
    ]  # fmt: skip
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            train.main()
    finally:
        run_module.run_cell = run_cell


def main(arguments: list[str] | None = None) -> int:
    """Measure both parts, print the lines and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2000, help="of the long run")
    parser.add_argument("--cells", type=int, default=40, help="of the sweep")
    parser.add_argument("--allowed-mib", type=float, default=8.0, help="growth of the memory")
    args = parser.parse_args(arguments)
    out = sys.stdout

    def show(line: str) -> None:
        print(line, file=out, flush=True)

    leaks = False
    with tempfile.TemporaryDirectory(prefix="leaks-") as root:
        outputs, temporary = Path(root, "outputs"), Path(root, "tmp")
        outputs.mkdir()
        temporary.mkdir()
        before, tempfile.tempdir = tempfile.tempdir, str(temporary)
        try:
            for part, measure, count in (
                ("steps", many_steps, args.steps),
                ("cells", many_cells, args.cells),
            ):
                samples = Samples(part, temporary, outputs, show)
                measure(samples, count)
                grew = samples.grew()
                show(json.dumps({"of": part, "grew": grew}))
                leaks |= any(grew[key] > 0 for key in COUNTED)
                leaks |= grew["rss_mib"] > args.allowed_mib
        finally:
            tempfile.tempdir = before
    return int(leaks)


if __name__ == "__main__":
    sys.exit(main())
