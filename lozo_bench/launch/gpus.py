"""Which GPUs there are, asked without touching CUDA, and whose turn it is."""

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
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        names = [name.strip() for name in told.split(",")]
        # CUDA ignores what follows the first name that is none.
        return names[: next((i for i, name in enumerate(names) if name in ("", "-1")), None)]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    listed = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)
    return listed_gpus(listed.stdout) if listed.returncode == 0 else []


def listed_gpus(text: str) -> list[str]:
    """The ids in what ``nvidia-smi -L`` prints; the parts of a GPU that is divided, for itself."""
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
    """The first ``count`` visible GPUs, all for None.

    Raises:
        UserError: there are not so many.
    """
    if count == 0:
        return []
    there = visible()
    if count is None:
        return there
    if not 0 <= count <= len(there):
        raise bad_value(_KEY, count, f"null (all) or 0 to {len(there)}, which are visible")
    return there[:count]


class Deck:
    """Deals GPUs: each time the one with the fewest cells on it."""

    def __init__(self, names: Sequence[str]) -> None:
        self._load = Counter(dict.fromkeys(names, 0))

    def take(self) -> str | None:
        """A GPU, until it is given back; None if there are none."""
        if not self._load:
            return None
        name = min(self._load, key=self._load.__getitem__)
        self._load[name] += 1
        return name

    def give_back(self, name: str | None) -> None:
        """Its cell has ended."""
        if name is not None:
            self._load[name] -= 1
