"""The exit codes of a cell, the names of its files, and ``failed.json``."""

from __future__ import annotations

import json
import logging
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path

from lozo_bench.runs.files import parse_json, read_file

log = logging.getLogger(__name__)

RESULT = "result.json"
JOURNAL = "journal.bin"
METRICS = "metrics.jsonl"
EVENTS = "events.jsonl"
FAILED = "failed.json"
SEARCH = "search.svg"
ALLOCATION = "allocation.svg"
BILEVEL = "bilevel.svg"


class Code(IntEnum):
    """Exit codes of a cell.

    Attributes:
        finished: the result is written.
        defect: an unexpected exception.
        bad_input: an error that the user can correct.
        busy: another process runs the cell.
        stopped: the cell was asked to stop, has saved its state and can be resumed.
        skipped: ``rerun`` does not select the cell.
    """

    finished = 0
    defect = 1
    bad_input = 2
    busy = 3
    stopped = 4
    skipped = 5


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a cell has no result: one line for the user, and the command that runs it alone."""

    reason: str
    code: int
    command: str
    when: str = ""


def is_first_process() -> bool:
    """Return whether this is the only or the first process of a run, by torchrun or SLURM.

    Only that process writes into the run's folder: another one may have been started with other
    values, and its folder may be another run's.
    """
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def write_failure(folder: Path, failure: Failure) -> None:
    """Write ``failed.json`` with the current time; if that fails, log an error instead."""
    record = asdict(failure) | {"when": time.strftime("%Y-%m-%d %H:%M:%S")}
    # The processes of one run may fail at the same time, so each writes a draft of its own.
    draft = folder / f"{FAILED}.{os.getpid()}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        draft.replace(folder / FAILED)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        log.error("%s: failed.json could not be written: %s", folder, error.strerror)


def written_at(path: Path) -> int:
    """Return a file's modification time in nanoseconds, or 0 if there is no file."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def read_failure(folder: Path) -> Failure | None:
    """Read ``failed.json``; return None if there is none. A damaged one is a failure too."""
    try:
        data = read_file(folder / FAILED)
        if data is None:
            return None
        failure = Failure(**parse_json(data))
    except (ValueError, TypeError):
        return Failure(f"{FAILED} cannot be read", Code.defect, "")
    texts = (failure.reason, failure.command, failure.when)
    if not all(isinstance(text, str) for text in texts):
        return Failure(f"{FAILED} cannot be read", Code.defect, "")
    return failure
