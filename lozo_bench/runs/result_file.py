"""``result.json``: its presence means that a run is finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lozo_bench.errors import UserError
from lozo_bench.runs.atomic import write_text
from lozo_bench.runs.outcome import RESULT


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write ``result.json`` atomically: its presence means that the run is finished."""
    write_text(folder / RESULT, json.dumps(result, indent=2, allow_nan=False) + "\n")


def read_result(folder: Path, digest: str) -> dict[str, Any] | None:
    """Return the finished result in ``folder``, or None.

    Raises:
        UserError: the file is damaged or belongs to another config.
    """
    path = folder / RESULT
    if not path.is_file():
        return None
    try:
        result: Any = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: the file is not valid JSON ({error}); run again with rerun=all"
        ) from error
    if not isinstance(result, dict) or not {"status", "digest", "metrics"} <= set(result):
        raise UserError(f"{path}: the file is not the result of a run; run again with rerun=all")
    if result["digest"] != digest:
        raise UserError(
            f"{path}: its digest is {result['digest']}, but this run's is {digest}; "
            "move the folder away or run again with rerun=all"
        )
    finished: dict[str, Any] = result
    return finished
