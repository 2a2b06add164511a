"""The journal of a run: the losses and other scalars that its optimizer received in each step.

For a zeroth-order method, the seed and these numbers determine the run: `Score` replays them, and
every step is repeated from them without a forward pass.

The file consists of blocks. Blocks are only ever appended, and each is synced to disk:

    length, CRC-32      two little-endian uint32
    payload             compressed: a line of JSON, then numbers

The first block is the header. Every other block holds the steps since the block before it: the
number and shapes of the answers (the tensors that `Score` returned) in each step, the answers
themselves (float32, or float64 for float64 weights), the evaluations in this period, and the
run's costs at its end. Reading stops at the first block that is damaged or cut off by a crash; all
blocks before it are valid.
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

Answers = Sequence[Tensor]
_FRAME = struct.Struct("<II")
VERSION = 2
# Preset dictionary for zlib: the JSON that most blocks resemble, so that it takes hardly any space.
_TYPICAL_LINE = (
    b'{"first": 101, "type": "<f4", "shapes": [[100, [[2]]]], "evaluations": [], "spent": {'
    b'"forwards": 200, "backwards": 0, "examples": 1600, "tokens": 40000, "bad_steps": 0, '
    b'"bad_in_a_row": 0, "sittings": 1, "elapsed_s": 1.2}}\n'
)


@dataclass(slots=True)
class Log:
    """The contents of a journal.

    Attributes:
        header: the first block.
        steps: ``steps[i]`` are the answers in step i + 1.
        evaluations: metrics by step and name of the set.
        spent: the run's costs at the end of the last block.
        ends: for each block, the file's length at its end and the last step in it.
        damage: what is wrong after the last valid block; empty if nothing is.
    """

    header: dict[str, Any] = field(default_factory=dict)
    steps: list[Answers] = field(default_factory=list)
    evaluations: dict[tuple[int, str], dict[str, float]] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    ends: list[tuple[int, int]] = field(default_factory=list)
    damage: str = ""


def read(data: bytes) -> Log:
    """Read all blocks before the first damaged one."""
    log, at = Log(), 0
    while at < len(data):
        payload = _payload(data, at)
        if payload is None or not _add_block(log, payload):
            log.damage = f"damaged after byte {at} of {len(data)}, which is step {len(log.steps)}"
            break
        at += _FRAME.size + _FRAME.unpack_from(data, at)[0]
        log.ends.append((at, len(log.steps)))
    return log


def up_to(log: Log, data: bytes, step: int) -> bytes:
    """Return the blocks of ``data``, already read as ``log``, that end at or before ``step``."""
    ends = [end for end, last in log.ends if last <= step]
    return data[: ends[-1]] if ends else b""


class Journal:
    """Appends blocks to a journal file.

    Args:
        path: the file; all blocks in it must be valid (see `Log.ends`).
        step: the last step in the file.
        header: written first if the file is empty.
        spent: the costs of the steps in the file.
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
        self._unwritten: list[list[np.ndarray[Any, Any]]] = []
        self._evaluations: list[tuple[int, str, Mapping[str, float]]] = []
        if os.fstat(self._file.fileno()).st_size == 0:
            self._append(json.dumps({"version": VERSION, **header}).encode())
            sync_folder(path.parent)

    def step(self, answers: Answers, spent: Mapping[str, float]) -> None:
        """Record the answers of the next step, and the run's total costs at its end."""
        self._spent = spent
        self._unwritten.append([answer.numpy() for answer in answers])

    def evaluation(self, step: int, name: str, values: Mapping[str, float]) -> None:
        """Record the metrics of an evaluation."""
        self._evaluations.append((step, name, dict(values)))

    def flush(self) -> None:
        """Write everything recorded since the last flush to disk, as one block.

        Raises:
            OSError: the disk is full; the file is unchanged, and a later flush tries again.
        """
        if not self._unwritten and not self._evaluations:
            return
        answers = [answer for step in self._unwritten for answer in step]
        line = {
            "first": self._step + 1,
            "type": answers[0].dtype.str if answers else "<f4",
            "shapes": [
                [len(list(same)), shapes]
                for shapes, same in groupby([[a.shape for a in step] for step in self._unwritten])
            ],
            "evaluations": self._evaluations,
            "spent": self._spent,
        }
        self._append(json.dumps(line).encode() + b"\n" + _to_columns(answers))
        self._step += len(self._unwritten)
        self._unwritten, self._evaluations = [], []

    def close(self) -> None:
        """Close the file. Records that were not flushed are lost."""
        self._file.close()

    def _append(self, payload: bytes) -> None:
        packer = zlib.compressobj(9, zdict=_TYPICAL_LINE)
        packed = packer.compress(payload) + packer.flush()
        length = os.fstat(self._file.fileno()).st_size
        block = memoryview(_FRAME.pack(len(packed), zlib.crc32(packed)) + packed)
        try:
            while block:
                block = block[self._file.write(block) :]
            os.fsync(self._file.fileno())
        except OSError:
            os.ftruncate(self._file.fileno(), length)  # an incomplete block would hide later ones
            raise


def _payload(data: bytes, at: int) -> bytes | None:
    if len(data) - at < _FRAME.size:
        return None
    length, crc = _FRAME.unpack_from(data, at)
    packed = data[at + _FRAME.size : at + _FRAME.size + length]
    # A crash of the machine can leave zeros behind, which have a valid checksum.
    if not length or len(packed) < length or zlib.crc32(packed) != crc:
        return None
    return zlib.decompressobj(zdict=_TYPICAL_LINE).decompress(packed)


def _add_block(log: Log, payload: bytes) -> bool:
    """Add a block to the log; return False if it does not follow the last one."""
    line, _, numbers = payload.partition(b"\n")
    fields = json.loads(line)
    if not log.ends:
        log.header = fields
        return True
    if fields["first"] != len(log.steps) + 1:
        return False
    values, at = _from_columns(numbers, np.dtype(fields["type"])), 0
    for count, shapes in fields["shapes"]:
        for _ in range(count):
            answers = []
            for shape in shapes:
                size = int(np.prod(shape))
                answers.append(torch.from_numpy(values[at : at + size].reshape(shape)))
                at += size
            log.steps.append(answers)
    for step, name, values in fields["evaluations"]:
        log.evaluations[step, name] = values
    log.spent = fields["spent"]
    return True


def _to_columns(answers: Sequence[np.ndarray[Any, Any]]) -> bytes:
    """Store the first bytes of all numbers, then all second bytes and so on.

    Bytes of the same significance are alike and compress better side by side.
    """
    if not answers:
        return b""
    flat = np.concatenate([answer.reshape(-1) for answer in answers])
    return flat.view(np.uint8).reshape(len(flat), -1).T.tobytes()


def _from_columns(numbers: bytes, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    columns = np.frombuffer(numbers, np.uint8).reshape(dtype.itemsize, -1)
    return columns.T.copy().reshape(-1).view(dtype)
