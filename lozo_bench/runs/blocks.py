"""The blocks of a journal: each is compressed and has a length and a checksum.

    length, CRC-32      two little-endian uint32
    payload             compressed: a line of JSON, then numbers

The first block, the header, is one line of JSON only. A copy of it follows, because without a
header nothing else in a journal can be used. This module needs neither torch nor numpy.
"""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

from lozo_bench.runs.files import read_start
from lozo_bench.runs.outcome import JOURNAL

_FRAME = struct.Struct("<II")
# Preset dictionary for zlib: the JSON that most blocks resemble, so that it takes hardly any space.
_TYPICAL_LINE = (
    b'{"first": 101, "type": "<f4", "shapes": [[100, [[2]]]], "evaluations": [], "spent": {'
    b'"forwards": 200, "backwards": 0, "examples": 1600, "tokens": 40000, "bad_steps": 0, '
    b'"bad_in_a_row": 0, "sittings": 1, "elapsed_s": 1.2}}\n'
)
# The first byte of what zlib compresses, and the bit of the second one that stands for a preset
# dictionary.
_ZLIB, _HAS_DICTIONARY = 0x78, 0x20
_HEADER_BYTES = 2**20  # more than a header and its copy take


def pack(payload: bytes) -> bytes:
    """Return the block with this payload."""
    packer = zlib.compressobj(9, zdict=_TYPICAL_LINE)
    packed = packer.compress(payload) + packer.flush()
    return _FRAME.pack(len(packed), zlib.crc32(packed)) + packed


def unpack(data: bytes, at: int) -> tuple[bytes, int] | None:
    """Return the payload of the block that begins at byte ``at``, and where the block ends.

    Returns:
        None if the block is damaged or incomplete.
    """
    packed = _packed(data, at)
    if packed is None:
        return None
    payload = zlib.decompressobj(zdict=_TYPICAL_LINE).decompress(packed)
    return payload, at + _FRAME.size + len(packed)


def next_block(data: bytes, at: int) -> int | None:
    """Return where the first intact block after byte ``at`` begins; None if there is none.

    A crash while a block was appended leaves none behind; other damage does.
    """
    start = data.find(_ZLIB, at + 1 + _FRAME.size)
    while start >= 0:
        has_dictionary = data[start + 1 : start + 2] and data[start + 1] & _HAS_DICTIONARY
        if has_dictionary and _packed(data, start - _FRAME.size):
            return start - _FRAME.size
        start = data.find(_ZLIB, start + 1)
    return None


def with_header(data: bytes) -> bytes:
    """Return a journal's bytes, from the header's copy on if only the copy is intact."""
    copy = next_block(data, 0) if data and unpack(data, 0) is None else None
    return data if copy is None or not _header_at(data, copy) else data[copy:]


def read_header(data: bytes) -> dict[str, Any]:
    """Return the header of a journal; empty if it is damaged or there is none."""
    return _header_at(with_header(data), 0)


def header_of(folder: Path) -> dict[str, Any]:
    """Return the header of the journal in a run's folder; empty as in `read_header`."""
    return read_header(read_start(folder / JOURNAL, _HEADER_BYTES))


def _header_at(data: bytes, at: int) -> dict[str, Any]:
    found = unpack(data, at)
    header: Any = {} if found is None else json.loads(found[0].partition(b"\n")[0])
    return header if isinstance(header, dict) and "version" in header else {}


def _packed(data: bytes, at: int) -> bytes | None:
    if len(data) - at < _FRAME.size:
        return None
    length, crc = _FRAME.unpack_from(data, at)
    packed = data[at + _FRAME.size : at + _FRAME.size + length]
    # A crash of the machine can leave zeros behind, which have a valid checksum.
    if not length or len(packed) < length or zlib.crc32(packed) != crc:
        return None
    return packed
