"""Prepares ``metrics.jsonl`` and ``events.jsonl`` of a run that continues.

Rows that the run will write again are removed. Of the rest, damaged rows are moved to a file of
their own (``metrics.jsonl.damaged``), and the evaluations among them are written again from the
run's history.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from lozo_bench.errors import counted
from lozo_bench.runs.atomic import write_whole
from lozo_bench.runs.files import read_file
from lozo_bench.runs.history import History, evaluated_set
from lozo_bench.runs.outcome import EVENTS, METRICS
from lozo_bench.runs.row import Row, read_numbers, read_row

log = logging.getLogger(__name__)

_DAMAGED = ".damaged"


def prepare_rows(folder: Path, past: History) -> None:
    """Keep the rows of both files that are final, and restore evaluations that are missing.

    Raises:
        UserError: one of the files cannot be read.
        OSError: one cannot be written.
    """
    _keep_metrics(folder / METRICS, past)
    _keep_events(folder / EVENTS, past)


def _keep_metrics(path: Path, past: History) -> None:
    data = read_file(path)
    if data is None:
        if not past.log.evaluations:
            return
        log.warning("%s is missing: its rows are lost, except those of evaluations", path)
    rows, damaged = _rows(data or b"", lambda line: _row(line, past))
    kept = [row for row in rows if past.is_final(row)]
    missing = _missing_evaluations(kept, past)
    for row in missing:
        kept.insert(_place(kept, row), row)
    _keep_damaged(path, damaged, len(missing))
    _write(path, kept, data)


def _keep_events(path: Path, past: History) -> None:
    data = read_file(path)
    if data is None:
        return
    rows, damaged = _rows(data, _event)
    _keep_damaged(path, damaged, 0)
    _write(path, [row for row in rows if row["step"] <= past.known], data)


def _rows(
    data: bytes, read: Callable[[bytes], Row | None]
) -> tuple[list[Row], list[tuple[int, bytes]]]:
    """Return the rows that ``read`` can read, and the other lines with their numbers.

    The last line is left out if it was not finished: a crash while it was written does that.
    """
    rows, damaged = [], []
    lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        row = read(line)
        if row is not None:
            rows.append(row)
        elif line and number < len(lines):
            damaged.append((number, line))
    return rows, damaged


def _row(line: bytes, past: History) -> Row | None:
    """Return a row of numbers with a step that the history agrees with; None if it is not one."""
    row = read_numbers(line)
    return row if row is not None and _agrees(row, past) else None


def _event(line: bytes) -> Row | None:
    row = read_row(line)
    return row if row is not None and isinstance(row.get("event"), str) else None


def evaluation_key(name: str, key: str) -> str:
    """Return the name of a metric of a set in a row: ``dev_accuracy``.

    That of a part, such as the accuracy of a task ``rte``, is ``dev/rte.accuracy``: wandb puts
    those of one set into one group.
    """
    return f"{name}{'/' if '.' in key else '_'}{key}"


def _agrees(row: Row, past: History) -> bool:
    """Return whether a row is as the history has it, if it describes an evaluation."""
    name = evaluated_set(row)
    recorded = past.evaluation(row["step"], name) if name else None
    if name is None or recorded is None:
        return True
    values = {key: row[whole] for key in recorded if (whole := evaluation_key(name, key)) in row}
    others = {key for key in row if key.startswith((f"{name}_", f"{name}/"))}
    if others != {evaluation_key(name, key) for key in recorded}:
        return False
    forwards = past.log.forwards.get((row["step"], name))
    return values == recorded and forwards in (None, row.get("forward_passes"))


def _missing_evaluations(kept: Sequence[Row], past: History) -> list[Row]:
    """Return the rows of recorded evaluations that are not among those that are kept."""
    there = {(row["step"], evaluated_set(row)) for row in kept}
    passes = {row["step"]: row["forward_passes"] for row in kept if "forward_passes" in row}
    passes |= {at[0]: forwards for at, forwards in past.log.forwards.items()}
    return [
        {
            "step": step,
            "forward_passes": passes[step],
            **{evaluation_key(name, key): x for key, x in values.items()},
        }
        for (step, name), values in past.log.evaluations.items()
        if (step, name) not in there and step in passes
    ]


def _place(rows: Sequence[Row], new: Row) -> int:
    """Return where a restored row belongs: after its step's rows; the test's row is the last."""
    if evaluated_set(new) == "test":
        return len(rows)
    later = (
        index
        for index, row in enumerate(rows)
        if row["step"] > new["step"] or evaluated_set(row) == "test"
    )
    return next(later, len(rows))


def _keep_damaged(path: Path, damaged: Sequence[tuple[int, bytes]], restored: int) -> None:
    aside = path.with_name(path.name + _DAMAGED)
    if damaged:
        with aside.open("ab") as file:
            file.writelines(line + b"\n" for _, line in damaged)
    if damaged or restored:
        numbers = ", ".join(str(number) for number, _ in damaged)
        moved = f"line {numbers} is damaged and was moved to {aside.name}" if damaged else ""
        again = f"restored from the journal: {counted(restored, 'row')}" if restored else ""
        log.warning("%s: %s", path, "; ".join(part for part in (moved, again) if part))


def _write(path: Path, kept: Sequence[Row], before: bytes | None) -> None:
    data = b"".join(json.dumps(row).encode() + b"\n" for row in kept)
    if data != (before or b""):
        write_whole(path, lambda draft: draft.write_bytes(data))
