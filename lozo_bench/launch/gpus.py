"""Lists the visible GPUs without initializing CUDA, and assigns them to cells."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence

from lozo_bench.errors import bad_value

_KEY = "hydra.launcher.gpus"


def visible() -> list[str]:
    """Return the GPUs that this process may use, in the form that CUDA_VISIBLE_DEVICES takes."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        names = [name.strip() for name in allowed.split(",")]
        # CUDA ignores everything after the first entry that names no device.
        return names[: next((i for i, name in enumerate(names) if name in ("", "-1")), None)]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    listed = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)
    return listed_gpus(listed.stdout) if listed.returncode == 0 else []


def listed_gpus(text: str) -> list[str]:
    """Return the ids in the output of ``nvidia-smi -L``.

    A GPU that is divided into MIG instances is replaced by the ids of its instances.
    """
    names: list[str] = []
    for line in text.splitlines():
        found = re.search(r"UUID: ((GPU|MIG)-[^)]+)\)", line)
        if found is None:
            continue
        if found[2] == "MIG" and names and names[-1].startswith("GPU-"):
            names.pop()
        names.append(found[1])
    return names


def chosen(count: int | None) -> list[str]:
    """Return the first ``count`` visible GPUs, or all of them if ``count`` is None.

    Raises:
        UserError: fewer than ``count`` GPUs are visible.
    """
    if count == 0:
        return []
    gpus = visible()
    if count is None:
        return gpus
    if not 0 <= count <= len(gpus):
        raise bad_value(_KEY, count, f"null (all) or 0 to {len(gpus)}, the number of visible GPUs")
    return gpus[:count]


class GpuPool:
    """Assigns GPUs to cells: each new cell gets the GPU that has the fewest cells on it."""

    def __init__(self, names: Sequence[str]) -> None:
        self._load = Counter(dict.fromkeys(names, 0))

    def take(self) -> str | None:
        """Return a GPU for a new cell, or None if there are no GPUs."""
        if not self._load:
            return None
        name = min(self._load, key=self._load.__getitem__)
        self._load[name] += 1
        return name

    def give_back(self, name: str | None) -> None:
        """Release a GPU after its cell has ended."""
        if name is not None:
            self._load[name] -= 1
