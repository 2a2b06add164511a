"""Full checkpoints: every tensor that makes up a run's state, in safetensors files.

`checkpoints/step-00000300.safetensors` holds the tensors and `step-00000300.json` what else there
is to know, with the checksum of the former. Both are written beside and renamed, the JSON last: a
crash at any byte leaves the checkpoints before it as they were. One that is damaged is passed over
for the one before it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lozo_bench.runs.atomic import write_text, write_whole

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class State:
    """The tensors of a run after ``step``, by name, and numbers to go with them."""

    step: int
    tensors: Mapping[str, Tensor]
    told: Mapping[str, Any]


class States:
    """The checkpoints in a folder.

    Args:
        folder: made when something is saved.
        keep: so many are kept, the newest ones.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def save(self, state: State) -> None:
        """Write a checkpoint, and remove those that are too old.

        Raises:
            OSError: no room or no permission; the checkpoints there were are as they were.
        """
        self.folder.mkdir(exist_ok=True)
        path = self._path(state.step)
        write_whole(path, lambda draft: save_file(dict(state.tensors), draft))
        line = {"step": state.step, "told": state.told, "blake2b": _checksum(path)}
        write_text(path.with_suffix(".json"), json.dumps(line) + "\n")
        for old in self.steps()[: -self.keep]:
            self._remove(old)

    def newest(self, at_most: int) -> State | None:
        """The newest checkpoint that is whole and not of a later step than ``at_most``."""
        for step in reversed(self.steps()):
            if step > at_most:
                continue
            state = self._load(step)
            if state is not None:
                return state
            log.warning("%s is damaged and is passed over", self._path(step))
        return None

    def remove_after(self, step: int) -> None:
        """Remove the checkpoints of later steps."""
        for later in self.steps():
            if later > step:
                self._remove(later)

    def _remove(self, step: int) -> None:
        path = self._path(step)
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    def _load(self, step: int) -> State | None:
        path = self._path(step)
        try:
            line: Any = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            if line["blake2b"] != _checksum(path):
                return None
            return State(step, load_file(path), line["told"])
        except (FileNotFoundError, ValueError, KeyError, TypeError, SafetensorError):
            return None

    def steps(self) -> list[int]:
        """The steps of all checkpoints that were committed, oldest first."""
        files = self.folder.glob("step-*.json")
        return sorted(int(file.stem.removeprefix("step-")) for file in files)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.safetensors"


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
