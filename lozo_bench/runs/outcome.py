"""How a cell can end, the names of its files, and the one that says why it failed."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from lozo_bench.runs.atomic import write_text

log = logging.getLogger(__name__)

RESULT = "result.json"
METRICS = "metrics.jsonl"
FAILED = "failed.json"


class Code(IntEnum):
    """Exit codes of a cell.

    One that is ``busy`` is run by another process. One that is ``stopped`` has saved its state and
    can go on. One that is ``skipped`` is not among those that ``rerun`` asks for.
    """

    finished = 0
    defect = 1
    bad_input = 2
    busy = 3
    stopped = 4
    skipped = 5


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a cell has no result: a line for people, and the command that runs it alone."""

    reason: str
    code: int
    command: str
    when: str = ""


def write_failure(folder: Path, failure: Failure) -> None:
    """Leave ``failed.json`` with the time; a line in the log where that cannot be done."""
    told = asdict(failure) | {"when": time.strftime("%Y-%m-%d %H:%M:%S")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / FAILED, json.dumps(told, indent=2) + "\n")
    except OSError as error:
        log.error("%s: the failure could not be written down: %s", folder, error.strerror)


def written_at(path: Path) -> int:
    """When a file was written last, in nanoseconds; 0 if there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def read_failure(folder: Path) -> Failure | None:
    """What ``failed.json`` says; None where there is none."""
    try:
        told: Any = json.loads((folder / FAILED).read_text(encoding="utf-8"))
        return Failure(**told)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return Failure(f"{FAILED} cannot be read", Code.defect, "")
