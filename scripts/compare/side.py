"""One of the two versions: where its code is, and the process that runs its cells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compare.cells import Cell

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("driver.py")
# One thread, because the order of a sum depends on their number. No files beside the code.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "WANDB_MODE": "disabled",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "GIT_OPTIONAL_LOCKS": "0",
}


class SideError(Exception):
    """A version cannot be found or started; the message says why."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a cell ended in one version: its folder, exit code and CPU seconds."""

    folder: Path
    code: int | str
    seconds: float


class Side:
    """Runs cells with one checkout, in a process that is started at once.

    Args:
        checkout: the folder with ``lozo_bench``; nothing is written there.
        outputs: an empty folder for everything that the cells write.
        cells: what it runs, in this order.
    """

    def __init__(self, checkout: Path, outputs: Path, cells: Sequence[Cell]) -> None:
        self.checkout, self.outputs, self.cells = checkout, outputs, cells
        self.outputs.mkdir(parents=True, exist_ok=True)
        self._process = self._start(0)

    def close(self) -> None:
        """End the process if it still runs."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def ended(self) -> Iterator[Ended]:
        """Yield how each cell ended, as soon as it has.

        A cell that takes the whole process down has the exit code of the process; the cells after
        it run in a new one.

        Raises:
            SideError: the version cannot be imported.
        """
        self._check_package()
        for i in range(len(self.cells)):
            line = self._line()
            if line is not None:
                yield Ended(self._folder(i), line["code"], line["seconds"])
                continue
            yield Ended(self._folder(i), f"process ended with {self._process.wait()}", 0.0)
            self.close()
            self._process = self._start(i + 1)
            self._check_package()

    def _start(self, first: int) -> subprocess.Popen[str]:
        rest = [
            {"folder": str(self._folder(i)), "arguments": self._arguments(i)}
            for i in range(first, len(self.cells))
        ]
        listed = self.outputs / "cells.json"
        listed.write_text(json.dumps(rest), encoding="utf-8")
        with (self.outputs / "driver.txt").open("w") as errors:
            return subprocess.Popen(
                # -P: modules beside the driver must not hide others.
                [sys.executable, "-P", str(DRIVER), str(listed)],
                cwd=self.outputs,
                env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(self.checkout)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def _folder(self, i: int) -> Path:
        return self.outputs / f"{i:03d}"

    def _arguments(self, i: int) -> list[str]:
        cell = self.cells[i]
        where = [f"hydra.run.dir={self._folder(i)}"] if cell.trains else []
        return [*cell.overrides, *where]

    def _line(self) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line.endswith("\n") else None

    def _check_package(self) -> None:
        line = self._line()
        if line is None:
            errors = (self.outputs / "driver.txt").read_text(encoding="utf-8").strip()
            raise SideError(f"{self.checkout}: cannot be imported: {errors[-1000:]}")
        package = Path(str(line["package"]))
        if not package.is_relative_to(self.checkout):
            raise SideError(f"{self.checkout}: {package} was imported instead")


@contextmanager
def checkout_of(version: str) -> Iterator[Path]:
    """Give the folder of a version: a folder as it is, a git revision as a temporary worktree.

    Raises:
        SideError: it is neither.
    """
    folder = Path(version).expanduser().resolve()
    if folder.is_dir():
        if not (folder / "lozo_bench" / "train.py").is_file():
            raise SideError(f"{version}: no lozo_bench/train.py in this folder")
        yield folder
        return
    found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{version}^{{commit}}")
    if found.returncode:
        raise SideError(f"{version}: neither a folder nor a git revision of {ROOT}")
    with tempfile.TemporaryDirectory(prefix="compare-code-") as temporary:
        worktree = Path(temporary).resolve() / "code"
        made = _git("worktree", "add", "--detach", str(worktree), found.stdout.strip())
        if made.returncode:
            raise SideError(f"{version}: git worktree add: {made.stderr.strip()}")
        try:
            yield worktree
        finally:
            _git("worktree", "remove", "--force", str(worktree))


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)
