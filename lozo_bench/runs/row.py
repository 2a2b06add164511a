"""One row of ``metrics.jsonl`` or ``events.jsonl``, read without torch or numpy."""

from __future__ import annotations

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
