"""One row of ``metrics.jsonl`` or ``events.jsonl``, read without torch or numpy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lozo_bench.runs.files import parse_json

Row = Mapping[str, Any]


def read_row(line: bytes) -> Row | None:
    """Return the row that a line of either file is; None if it is damaged."""
    try:
        row = parse_json(line)
    except ValueError:
        return None
    whole = isinstance(row, dict) and type(row.get("step")) is int and row["step"] >= 0
    return row if whole else None


def read_numbers(line: bytes) -> Row | None:
    """Return the row of ``metrics.jsonl`` that a line is; None if not all of it are numbers."""
    row = read_row(line)
    return row if row is not None and all(map(_is_finite, row.values())) else None


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
