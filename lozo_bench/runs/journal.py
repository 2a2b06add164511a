"""The scalar log of a run: what its optimizer was told in each step.

For a zeroth-order method the seed and these numbers are the run: `Score` is given them again, and
every step is made again.

A file of blocks that are only ever appended, each synced to disk:

    length, CRC-32      two little-endian uint32
    payload             compressed: a line of JSON, then numbers

The first block is the header. Every other one holds the steps since the block before it: how many
answers there were in each and of which shape, the answers themselves (float32, or float64 for
float64 weights), the evaluations made meanwhile, and what had been spent by its end. A block that
is damaged, or was cut off by a crash, ends the log; what stands before it is good.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lozo_bench.runs.atomic import sync_folder

Told = Sequence[Tensor]
_FRAME = struct.Struct("<II")
VERSION = 2
# What most blocks' JSON looks like: known beforehand, it takes next to no room in each.
_USUAL = (
    b'{"first": 101, "type": "<f4", "shapes": [[100, [[2]]]], "evaluations": [], "spent": {'
    b'"forwards": 200, "backwards": 0, "examples": 1600, "tokens": 40000, "bad_steps": 0, '
    b'"bad_in_a_row": 0, "sittings": 1, "elapsed_s": 1.2}}\n'
)


@dataclass(slots=True)
class Log:
    """A journal's contents.

    ``steps[i]`` is what step i + 1 was told. ``evaluations`` are numbers by step and name.
    ``spent`` is that of the last block. ``ends`` are the file's length at the end of each block
    with the step it ends with; ``damage`` says what was wrong behind the last.
    """

    header: dict[str, Any] = field(default_factory=dict)
    steps: list[Told] = field(default_factory=list)
    evaluations: dict[tuple[int, str], dict[str, float]] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    ends: list[tuple[int, int]] = field(default_factory=list)
    damage: str = ""


def read(data: bytes) -> Log:
    """Everything up to the first block that is not whole."""
    log, at = Log(), 0
    while at < len(data):
        payload = _payload(data, at)
        if payload is None or not _take(log, payload):
            log.damage = f"damaged after byte {at} of {len(data)}, which is step {len(log.steps)}"
            break
        at += _FRAME.size + _FRAME.unpack_from(data, at)[0]
        log.ends.append((at, len(log.steps)))
    return log


def up_to(log: Log, data: bytes, step: int) -> bytes:
    """The blocks of ``data``, which was read as ``log``, that end no later than ``step``."""
    ends = [end for end, last in log.ends if last <= step]
    return data[: ends[-1]] if ends else b""


class Journal:
    """Appends to a log.

    Args:
        path: the file; what stands in it must be whole (see `Log.ends`).
        step: the last step in it.
        header: written first if the file is empty.
        spent: what the steps in it had cost.
    """

    def __init__(
        self,
        path: Path,
        step: int,
        header: Mapping[str, Any],
        spent: Mapping[str, float],
    ) -> None:
        self._file = path.open("ab", buffering=0)
        self._step, self._spent = step, spent
        self._waiting: list[list[np.ndarray[Any, Any]]] = []
        self._evaluations: list[tuple[int, str, Mapping[str, float]]] = []
        if os.fstat(self._file.fileno()).st_size == 0:
            self._append(json.dumps({"version": VERSION, **header}).encode())
            sync_folder(path.parent)

    def step(self, told: Told, spent: Mapping[str, float]) -> None:
        """Take down the next step, and what all of them have cost by its end."""
        self._spent = spent
        self._waiting.append([answer.numpy() for answer in told])

    def evaluation(self, step: int, name: str, values: Mapping[str, float]) -> None:
        """Take down an evaluation."""
        self._evaluations.append((step, name, dict(values)))

    def flush(self) -> None:
        """Put what was taken down onto the disk, as one block.

        Raises:
            OSError: no room; the file is as it was and nothing is forgotten, to try again.
        """
        if not self._waiting and not self._evaluations:
            return
        answers = [answer for told in self._waiting for answer in told]
        line = {
            "first": self._step + 1,
            "type": answers[0].dtype.str if answers else "<f4",
            "shapes": [
                [len(list(same)), shapes]
                for shapes, same in groupby([[a.shape for a in told] for told in self._waiting])
            ],
            "evaluations": self._evaluations,
            "spent": self._spent,
        }
        self._append(json.dumps(line).encode() + b"\n" + _packed(answers))
        self._step += len(self._waiting)
        self._waiting, self._evaluations = [], []

    def close(self) -> None:
        """Close the file; what was not flushed is forgotten."""
        self._file.close()

    def _append(self, payload: bytes) -> None:
        packer = zlib.compressobj(9, zdict=_USUAL)
        packed = packer.compress(payload) + packer.flush()
        length = os.fstat(self._file.fileno()).st_size
        block = memoryview(_FRAME.pack(len(packed), zlib.crc32(packed)) + packed)
        try:
            while block:
                block = block[self._file.write(block) :]
            os.fsync(self._file.fileno())
        except OSError:
            os.ftruncate(self._file.fileno(), length)  # half a block would hide those after it
            raise


def _payload(data: bytes, at: int) -> bytes | None:
    if len(data) - at < _FRAME.size:
        return None
    length, crc = _FRAME.unpack_from(data, at)
    packed = data[at + _FRAME.size : at + _FRAME.size + length]
    # Zeros, which a crash of the machine can leave behind, have the right checksum.
    if not length or len(packed) < length or zlib.crc32(packed) != crc:
        return None
    return zlib.decompressobj(zdict=_USUAL).decompress(packed)


def _take(log: Log, payload: bytes) -> bool:
    """Add a block to the log, if it is the next."""
    line, _, numbers = payload.partition(b"\n")
    told = json.loads(line)
    if not log.ends:
        log.header = told
        return True
    if told["first"] != len(log.steps) + 1:
        return False
    values, at = _unpacked(numbers, np.dtype(told["type"])), 0
    for count, shapes in told["shapes"]:
        for _ in range(count):
            answers = []
            for shape in shapes:
                size = int(np.prod(shape))
                answers.append(torch.from_numpy(values[at : at + size].reshape(shape)))
                at += size
            log.steps.append(answers)
    for step, name, values in told["evaluations"]:
        log.evaluations[step, name] = values
    log.spent = told["spent"]
    return True


def _packed(answers: Sequence[np.ndarray[Any, Any]]) -> bytes:
    """First bytes of all numbers, then all second ones: alike beside alike compresses better."""
    if not answers:
        return b""
    flat = np.concatenate([answer.reshape(-1) for answer in answers])
    return flat.view(np.uint8).reshape(len(flat), -1).T.tobytes()


def _unpacked(numbers: bytes, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    columns = np.frombuffer(numbers, np.uint8).reshape(dtype.itemsize, -1)
    return columns.T.copy().reshape(-1).view(dtype)
