"""Checkpoints: all tensors of a run's state, in safetensors files.

`checkpoints/step-00000300.safetensors` holds the tensors; `step-00000300.json` holds one line:

    step        that of the file's name
    told        the trainer's metadata: the best step and what its streams have taken
    history     what the journal holds up to this step, except the losses: ``header``,
                ``evaluations`` and ``spent``; so a run continues although its journal is lost
    blake2b     the checksum of the tensors' file
    checksum    that of this line (see `lozo_bench.runs.files.sealed`)

Both are written under another name and renamed, the JSON file last, so that a crash at any byte
leaves earlier checkpoints unchanged. A checkpoint that is damaged or of another run is skipped with
a warning, and the one before it is used. Former versions wrote only ``step``, ``told`` and
``blake2b``: these are used too, if they agree with the journal.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lozo_bench.errors import UserError
from lozo_bench.runs.atomic import write_text, write_whole
from lozo_bench.runs.files import is_intact, parse_json, read_file, sealed, set_aside
from lozo_bench.runs.tensor_files import remove_unfinished, system_errors

log = logging.getLogger(__name__)

_NAME = re.compile(r"step-(\d{8,})\.json")
_FORMER_ITEMS = {"step", "told", "blake2b"}
UNUSABLE = ".unusable"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a run after ``step``: its tensors by name, and metadata.

    ``history`` is the content of the run's journal up to this step, except its losses; None in a
    checkpoint of a former version.
    """

    step: int
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any]
    history: Mapping[str, Any] | None = None


# Returns why a checkpoint, given without its tensors, cannot be used; empty if it can.
Objection = Callable[[Checkpoint], str]


class Checkpoints:
    """The checkpoints in a folder.

    Args:
        folder: created on the first save.
        keep: the number of newest checkpoints that are kept.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._skipped: list[int] = []

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
        line: dict[str, Any] = {"step": state.step, "told": state.metadata}
        if state.history is not None:
            line["history"] = state.history
        line = sealed(line | {"blake2b": _checksum(path)})
        write_text(path.with_suffix(".json"), json.dumps(line) + "\n")
        for old in self.steps()[: -self.keep]:
            self._remove(old)

    def newest(
        self, at_most: int | None = None, objection: Objection = lambda state: ""
    ) -> Checkpoint | None:
        """Return the newest checkpoint that can be used, or None.

        Args:
            at_most: the last step that is wanted; None: any.
            objection: returns what is wrong with a checkpoint that is undamaged by itself.

        Raises:
            UserError: a file cannot be read.
        """
        for step in reversed(self.steps()):
            if at_most is not None and step > at_most:
                continue
            try:
                return self._load(step, objection)
            except _UnusableError as error:
                log.warning("%s %s and is skipped", self._path(step), error)
                self._skipped.append(step)
        return None

    def set_skipped_aside(self) -> None:
        """Rename the checkpoints that `newest` skipped, so that nothing replaces or removes them.

        Each file keeps its name with the ending ``.unusable``.
        """
        for step in self._skipped:
            path = self._path(step)
            for file in (path.with_suffix(".json"), path):
                if os.path.lexists(file):
                    set_aside(file, UNUSABLE)
        self._skipped.clear()

    def _remove(self, step: int) -> None:
        path = self._path(step)
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    def _load(self, step: int, objection: Objection) -> Checkpoint:
        path = self._path(step)
        line = _line(path.with_suffix(".json"))
        described = Checkpoint(step, {}, line["told"], line.get("history"))
        if line["step"] != step:
            raise _UnusableError(f"is of step {line['step']}")
        if wrong := objection(described):
            raise _UnusableError(wrong)
        try:
            if line["blake2b"] != _checksum(path):
                raise _UnusableError("is damaged")
            return Checkpoint(step, load_file(path), described.metadata, described.history)
        except (FileNotFoundError, IsADirectoryError, SafetensorError) as error:
            raise _UnusableError("is damaged") from error

    def steps(self) -> list[int]:
        """Return the steps of all complete checkpoints, oldest first."""
        found = (_NAME.fullmatch(name) for name in _names(self.folder))
        return sorted(int(match[1]) for match in found if match)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.safetensors"


class _UnusableError(Exception):
    """A checkpoint cannot be used; the message continues a sentence about it."""


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be read ({error.strerror}); a run's checkpoints are in this folder"
        ) from error


def _line(path: Path) -> Mapping[str, Any]:
    """Return the content of a JSON file that can be believed."""
    try:
        if not path.is_file():
            raise _UnusableError("is damaged")
        line = parse_json(read_file(path) or b"")
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise _UnusableError("is damaged") from error
    if not isinstance(line, dict) or not line.keys() >= _FORMER_ITEMS:
        raise _UnusableError("is damaged")
    if line.keys() != _FORMER_ITEMS and not is_intact(line):
        raise _UnusableError("is damaged")
    return line


def _checksum(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
