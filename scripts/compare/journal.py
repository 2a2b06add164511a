"""A reader of journal.bin that does not depend on either version's code.

The format is that of version 2 (see lozo_bench's journal module): blocks of length, CRC-32 and a
compressed payload, which is a line of JSON and then numbers. The first block is the header, which
later versions write twice.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

_FRAME = struct.Struct("<II")
# The dictionary that every block is compressed with. It is part of the format.
_DICTIONARY = (
    b'{"first": 101, "type": "<f4", "shapes": [[100, [[2]]]], "evaluations": [], "spent": {'
    b'"forwards": 200, "backwards": 0, "examples": 1600, "tokens": 40000, "bad_steps": 0, '
    b'"bad_in_a_row": 0, "sittings": 1, "elapsed_s": 1.2}}\n'
)
_VERSION = 2
# Keys of the header that later versions have.
_LATER_KEYS = {"config", "files"}
# Wall-clock time, which differs from run to run.
SECONDS = frozenset({"train_s", "elapsed_s"})


class JournalError(ValueError):
    """The data are not a whole journal."""


@dataclass(slots=True)
class Journal:
    """What a journal holds, whatever blocks it was written in.

    Args:
        keys: those of the header.
        steps: for each step its values as type, shape and bytes.
        evaluations: step, name and values of each.
        spent: the costs after the last step, without seconds.
    """

    keys: tuple[str, ...] = ()
    steps: list[list[tuple[str, tuple[int, ...], bytes]]] = field(default_factory=list)
    evaluations: list[Any] = field(default_factory=list)
    spent: dict[str, Any] = field(default_factory=dict)


def read(data: bytes) -> Journal:
    """Read a journal.

    Raises:
        JournalError: a block is damaged or has another format.
    """
    journal, at = Journal(), 0
    while at < len(data):
        try:
            length, checksum = _FRAME.unpack_from(data, at)
            packed = data[at + _FRAME.size : at + _FRAME.size + length]
            if len(packed) < length or zlib.crc32(packed) != checksum:
                raise JournalError(f"damaged after byte {at}")
            payload = zlib.decompressobj(zdict=_DICTIONARY).decompress(packed)
            line, _, numbers = payload.partition(b"\n")
            _add(journal, json.loads(line), numbers)
        except (struct.error, zlib.error, ValueError, KeyError, IndexError) as error:
            raise JournalError(f"cannot be read after byte {at}: {error}") from error
        at += _FRAME.size + length
    if not journal.keys:
        raise JournalError("has no header")
    return journal


def _add(journal: Journal, block: dict[str, Any], numbers: bytes) -> None:
    if not journal.keys:
        if block["version"] != _VERSION:
            raise JournalError(f"has version {block['version']}, not {_VERSION}")
        journal.keys = tuple(sorted(block.keys() - _LATER_KEYS))
        return
    if "version" in block:  # the header's copy
        return
    if block["first"] != len(journal.steps) + 1:
        raise JournalError(f"step {block['first']} follows step {len(journal.steps)}")
    kind, at = block["type"], 0
    count = len(numbers) // int(kind[2:])
    for repeats, shapes in block["shapes"]:
        for _ in range(repeats):
            step = []
            for shape in shapes:
                size = math.prod(shape)
                # The file has the first bytes of all values, then all second bytes, and so on.
                values = b"".join(numbers[i::count] for i in range(at, at + size))
                step.append((kind, tuple(shape), values))
                at += size
            journal.steps.append(step)
    if at != count:
        raise JournalError(f"a block has {count} values, not {at}")
    journal.evaluations += block["evaluations"]
    journal.spent = {key: value for key, value in block["spent"].items() if key not in SECONDS}


def differences(before: Journal, after: Journal) -> list[str]:
    """Say what differs between two journals."""
    found = []
    if before.keys != after.keys:
        found.append(f"header keys {sorted(set(before.keys) ^ set(after.keys))}")
    if len(before.steps) != len(after.steps):
        found.append(f"{len(before.steps)} and {len(after.steps)} steps")
    for i, (one, other) in enumerate(zip(before.steps, after.steps, strict=False)):
        if one != other:
            found.append(f"values of step {i + 1}")
            break
    if before.evaluations != after.evaluations:
        found.append("evaluations")
    if before.spent != after.spent:
        changed = before.spent.items() ^ after.spent.items()
        found.append(f"costs {sorted({key for key, _ in changed})}")
    return found
