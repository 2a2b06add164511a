"""``result.json``: its presence means that a run is finished.

Its last item is a checksum of all others. Results of former versions have none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lozo_bench.errors import UserError
from lozo_bench.runs.atomic import write_text
from lozo_bench.runs.files import CHECKSUM, is_intact, parse_json, read_file, sealed
from lozo_bench.runs.outcome import RESULT

_ITEMS = {"status", "digest", "metrics"}
_AGAIN = (
    "move it away, and the same command writes it again from the journal or the checkpoints as far "
    "as they are there; or run everything again with rerun=all"
)


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write ``result.json`` atomically: its presence means that the run is finished."""
    write_text(folder / RESULT, json.dumps(sealed(result), indent=2, allow_nan=False) + "\n")


def load_result(folder: Path) -> dict[str, Any] | None:
    """Return the result in ``folder`` if its checksum is right or it has none; None without a file.

    Raises:
        UserError: the file is damaged, or is not the result of a run.
    """
    path = folder / RESULT
    data = read_file(path)
    if data is None:
        return None
    try:
        result: Any = parse_json(data)
    except ValueError as error:
        raise UserError(f"{path}: the file is not valid JSON ({error}); {_AGAIN}") from error
    if not isinstance(result, dict):
        raise UserError(f"{path}: the file is not the result of a run; {_AGAIN}")
    if CHECKSUM in result and not is_intact(result):
        raise UserError(f"{path}: the file is damaged, its checksum is another; {_AGAIN}")
    return {key: value for key, value in result.items() if key != CHECKSUM}


def load_metrics(folder: Path) -> dict[str, dict[str, float]] | None:
    """Return the metrics of a finished run by the name of the set; None if it is not finished.

    Raises:
        UserError: the result is damaged, or has no test metrics.
    """
    result = load_result(folder)
    if result is None:
        return None
    found: Any = result.get("metrics")
    sets = list(found.values()) if isinstance(found, dict) and found.get("test") else [None]
    if not all(_are_numbers(values) for values in sets):
        raise UserError(f"{folder / RESULT}: the file is not the result of a run; {_AGAIN}")
    metrics: dict[str, dict[str, float]] = found
    return metrics


def _are_numbers(values: Any) -> bool:
    return isinstance(values, dict) and all(
        isinstance(x, int | float) and math.isfinite(x) for x in values.values()
    )


def read_result(folder: Path, digest: str) -> dict[str, Any] | None:
    """Return the finished result in ``folder``, or None.

    Raises:
        UserError: the file is damaged or belongs to another config.
    """
    path, result = folder / RESULT, load_result(folder)
    if result is None:
        return None
    if not result.keys() >= _ITEMS:
        raise UserError(f"{path}: the file is not the result of a run; {_AGAIN}")
    if result["digest"] != digest:
        raise UserError(
            f"{path}: its digest is {result['digest']}, but this run's is {digest}; "
            "move the folder away or run again with rerun=all"
        )
    return result
