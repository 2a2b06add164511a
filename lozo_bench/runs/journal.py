"""The journal of a run: the losses and other scalars that its optimizer received in each step.

For a zeroth-order method, the seed and these numbers determine the run: `Score` replays them, and
every step is repeated from them without a forward pass.

The file consists of blocks (see `lozo_bench.runs.blocks`). They are only appended, and each is
synced to disk. The first one is the header, and the second one its copy. Every other block holds
the steps since the block before it: the number and shapes of the answers (the tensors that `Score`
returned) in each step, the answers themselves (float32, or float64 for float64 weights), the
evaluations in this period, and the run's costs at its end. Reading stops at the first block that is
damaged or cut off by a crash; all blocks before it are valid. If blocks were lost and the run
continued from a checkpoint, a block with ``lost``, a number of steps, stands for them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lozo_bench.runs.atomic import sync_folder
from lozo_bench.runs.blocks import next_block, pack, read_header, unpack

Answers = Sequence[Tensor]
VERSION = 2


@dataclass(slots=True)
class Log:
    """The contents of a journal.

    Attributes:
        header: the first block.
        steps: ``steps[i]`` are the answers in step i + 1.
        lost: the steps whose answers are lost.
        evaluations: metrics by step and name of the set.
        forwards: the forward passes spent before an evaluation, for those that have it recorded.
        spent: the run's costs at the end of the last block.
        ends: for each block, the file's length at its end and the last step in it.
        damage: what is wrong after the last valid block; empty if nothing is.
        readable_rest: there are intact blocks after the damage.
    """

    header: dict[str, Any] = field(default_factory=dict)
    steps: list[Answers] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)
    evaluations: dict[tuple[int, str], dict[str, float]] = field(default_factory=dict)
    forwards: dict[tuple[int, str], int] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    ends: list[tuple[int, int]] = field(default_factory=list)
    damage: str = ""
    readable_rest: bool = False

    def first_lost_after(self, step: int) -> int | None:
        """Return the first step after ``step`` whose answers are lost, or None."""
        return min((lost for lost in self.lost if lost > step), default=None)


def read(data: bytes) -> Log:
    """Read all blocks before the first damaged one."""
    log, at = Log(), 0
    while at < len(data):
        block = unpack(data, at)
        if block is None or not _add_block(log, block[0]):
            log.damage = f"damaged after byte {at} of {len(data)}, which is step {len(log.steps)}"
            log.readable_rest = next_block(data, at) is not None
            break
        at = block[1]
        log.ends.append((at, len(log.steps)))
    return log


def up_to(log: Log, data: bytes, step: int) -> bytes:
    """Return the blocks of ``data``, already read as ``log``, that end at or before ``step``."""
    ends = [end for end, last in log.ends if last <= step]
    return data[: ends[-1]] if ends else b""


def without_lost_steps(
    log: Log,
    data: bytes,
    header: Mapping[str, Any],
    step: int,
    evaluations: Sequence[Sequence[Any]],
    spent: Mapping[str, float],
) -> bytes:
    """Return a journal up to ``step`` although some of its steps are lost.

    Args:
        log: what could be read of the journal.
        data: the bytes of these blocks.
        header: the header, which is written if no block could be read.
        step: the last step.
        evaluations: step, name, metrics and forward passes of each evaluation up to ``step``.
        spent: the costs of the steps up to ``step``.
    """
    line = {
        "first": len(log.steps) + 1,
        "lost": step - len(log.steps),
        "type": "<f4",
        "shapes": [],
        **_of_evaluations(evaluations),
        "spent": spent,
    }
    begins = data or 2 * pack(json.dumps(header).encode())  # the header and its copy
    return begins + pack(json.dumps(line).encode() + b"\n")


def retold(data: bytes, header: Mapping[str, Any], keeps: Callable[[int, str], bool]) -> bytes:
    """Return a journal with another header, and without some of its evaluations.

    Args:
        data: the journal, which begins with its header; all its blocks must be valid.
        header: the new header, without the format's version.
        keeps: returns whether the evaluation of a set after a step is kept.
    """
    first = json.dumps({"version": VERSION, **header}).encode()
    former = read_header(data)
    out, at = 2 * pack(first), 0
    while (block := unpack(data, at)) is not None:
        payload, at = block
        line, _, numbers = payload.partition(b"\n")
        fields = json.loads(line)
        if fields != former:
            out += pack(json.dumps(_without(fields, keeps)).encode() + b"\n" + numbers)
    return out


def _without(fields: dict[str, Any], keeps: Callable[[int, str], bool]) -> dict[str, Any]:
    """Return a block's line without the evaluations that are not kept."""
    kept = [i for i, (step, name, _) in enumerate(fields["evaluations"]) if keeps(step, name)]
    lists = {key: fields[key] for key in ("evaluations", "forwards") if fields.get(key)}
    return fields | {key: [values[i] for i in kept] for key, values in lists.items()}


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
        self._evaluations: list[tuple[int, str, Mapping[str, float], int]] = []
        if os.fstat(self._file.fileno()).st_size == 0:
            block = json.dumps({"version": VERSION, **header}).encode()
            self._append(block)
            self._append(block)  # the copy
            sync_folder(path.parent)

    def step(self, answers: Answers, spent: Mapping[str, float]) -> None:
        """Record the answers of the next step, and the run's total costs at its end."""
        self._spent = spent
        self._unwritten.append([answer.numpy() for answer in answers])

    def evaluation(self, step: int, name: str, values: Mapping[str, float]) -> None:
        """Record the metrics of an evaluation, and the forward passes of the steps before it."""
        forwards = int(self._spent.get("forwards", 0))
        self._evaluations.append((step, name, dict(values), forwards))

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
            **_of_evaluations(self._evaluations),
            "spent": self._spent,
        }
        self._append(json.dumps(line).encode() + b"\n" + _to_columns(answers))
        self._step += len(self._unwritten)
        self._unwritten, self._evaluations = [], []

    def close(self) -> None:
        """Close the file. Records that were not flushed are lost."""
        self._file.close()

    def _append(self, payload: bytes) -> None:
        length = os.fstat(self._file.fileno()).st_size
        block = memoryview(pack(payload))
        try:
            while block:
                block = block[self._file.write(block) :]
            os.fsync(self._file.fileno())
        except OSError:
            os.ftruncate(self._file.fileno(), length)  # an incomplete block would hide later ones
            raise


def _of_evaluations(evaluations: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Return the items of a block's line that describe its evaluations."""
    items: dict[str, Any] = {"evaluations": [each[:3] for each in evaluations]}
    return items | ({"forwards": [each[3] for each in evaluations]} if evaluations else {})


def _add_block(log: Log, payload: bytes) -> bool:
    """Add a block to the log; return False if it does not follow the last one."""
    line, _, numbers = payload.partition(b"\n")
    fields = json.loads(line)
    if not log.ends:
        log.header = fields
        return True
    if fields == log.header:
        return True  # its copy
    if fields["first"] != len(log.steps) + 1:
        return False
    if lost := fields.get("lost", 0):
        log.lost |= set(range(len(log.steps) + 1, len(log.steps) + 1 + lost))
        log.steps += [()] * lost
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
    for (step, name, _), forwards in zip(
        fields["evaluations"], fields.get("forwards", []), strict=False
    ):
        log.forwards[step, name] = forwards
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
