"""Checkpoints: all tensors of a run's state, in safetensors files.

`checkpoints/step-00000300.safetensors` holds the tensors; `step-00000300.json` holds the metadata
and the checksum of the tensors' file. Both are written under another name and renamed, the JSON
file last, so that a crash at any byte leaves earlier checkpoints unchanged. A damaged checkpoint is
skipped with a warning, and the one before it is used.
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
from lozo_bench.runs.tensor_files import remove_unfinished, system_errors

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a run after ``step``: its tensors by name, and metadata."""

    step: int
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any]


class Checkpoints:
    """The checkpoints in a folder.

    Args:
        folder: created on the first save.
        keep: the number of newest checkpoints that are kept.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def save(self, state: Checkpoint) -> None:
        """Write a checkpoint and remove the oldest ones.

        Raises:
            OSError: the disk is full or the permission is missing; older checkpoints are unchanged.
        """
        self.folder.mkdir(exist_ok=True)
        path = self._path(state.step)
        remove_unfinished(self.folder)
        with system_errors(path):
            write_whole(path, lambda draft: save_file(dict(state.tensors), draft))
        line = {"step": state.step, "told": state.metadata, "blake2b": _checksum(path)}
        write_text(path.with_suffix(".json"), json.dumps(line) + "\n")
        for old in self.steps()[: -self.keep]:
            self._remove(old)

    def newest(self, at_most: int) -> Checkpoint | None:
        """Return the newest undamaged checkpoint of a step up to ``at_most``, or None."""
        for step in reversed(self.steps()):
            if step > at_most:
                continue
            state = self._load(step)
            if state is not None:
                return state
            log.warning("%s is damaged and is skipped", self._path(step))
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

    def _load(self, step: int) -> Checkpoint | None:
        path = self._path(step)
        try:
            line: Any = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            if line["blake2b"] != _checksum(path):
                return None
            return Checkpoint(step, load_file(path), line["told"])
        except (FileNotFoundError, ValueError, KeyError, TypeError, SafetensorError):
            return None

    def steps(self) -> list[int]:
        """Return the steps of all complete checkpoints, oldest first."""
        files = self.folder.glob("step-*.json")
        return sorted(int(file.stem.removeprefix("step-")) for file in files)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.safetensors"


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
