"""Reads rows to answer from a file of the user's or from standard input; labels are optional."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lozo_bench.config.schema import TaskConfig
from lozo_bench.errors import UserError, bad_data, did_you_mean
from lozo_bench.tasks.base import Example
from lozo_bench.tasks.files import EXTENSIONS, read_rows, read_table
from lozo_bench.tasks.layout import Layout
from lozo_bench.tasks.lines import lines
from lozo_bench.tasks.rows import Row, fields_of, labelled, to_examples

log = logging.getLogger(__name__)

STANDARD_INPUT = "-"
Record = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Input:
    """Rows to answer.

    Args:
        examples: the rows as the task reads them.
        labelled: whether they have labels or answers.
        own: the columns of each row as they are in the file; None of texts without columns.
    """

    examples: Sequence[Example]
    labelled: bool = False
    own: Sequence[Mapping[str, Any]] | None = None


def read_input(given: str, task: TaskConfig, layout: Layout | None, names: Sequence[str]) -> Input:
    """Return the rows of a file or of standard input.

    Args:
        given: a ``.csv``, ``.tsv``, ``.jsonl`` or ``.json`` file with the columns of the task's
            data, or another file, or ``-``, with one text in each line.
        task: its fields are those of the rows.
        layout: the columns of the task's data; None: a column for each field, and ``label``.
        names: the names of the classes.

    Raises:
        UserError: the file cannot be read, has no rows, or lacks a column.
    """
    path = Path(given)
    if given == STANDARD_INPUT or path.suffix not in EXTENSIONS:
        return Input(_lines(given, task, layout))
    own = _records(path)
    examples, has_labels = _of_records(path, own, layout, names)
    if len(own) != len(examples):
        log.warning(
            "%s: a row of the file is not one row of the task; its columns are left out", path
        )
        return Input(examples, has_labels)
    return Input(examples, has_labels, [columns for _, columns in own])


def _of_records(
    path: Path,
    own: Sequence[tuple[str, Mapping[str, Any]]],
    layout: Layout | None,
    names: Sequence[str],
) -> tuple[list[Example], bool]:
    """Return the rows of a file with columns, and whether they have labels or answers."""
    records = [(where, _texts(columns)) for where, columns in own]
    if layout is None:
        return _without_layout(records, names)
    known = {layout.label, *layout.answers, layout.options.column if layout.options else None}
    known.discard(None)
    where, first = records[0]
    has = {column for column in known if column in first}
    if has == known:
        return to_examples(labelled(read_rows(path, layout), layout), layout), True
    if layout.options:
        missing = ", ".join(sorted(str(column) for column in known - has))
        raise bad_data(where, f"no column {missing}; rows of this task have their own options")
    return [_unlabelled(where, record, layout) for where, record in records], False


def _lines(given: str, task: TaskConfig, layout: Layout | None) -> list[Example]:
    """Return a row for each line that is not blank."""
    fields = list(layout.fields) if layout else re.findall(r"\{(\w+)", task.prompt or "")
    if len(set(fields)) != 1:
        allowed = f"a .csv, .tsv, .jsonl or .json file with the columns {', '.join(fields)}"
        raise UserError(f"--input: a row of this task has several texts; allowed: {allowed}")
    if given == STANDARD_INPUT:
        where, texts = "standard input", list(enumerate(sys.stdin.read().split("\n"), 1))
    else:
        where, texts = given, list(_readable(Path(given)))
    rows = [
        Example({fields[0]: text.removeprefix("\ufeff")}, where=f"{where}:{number}")
        for number, text in texts
        if text.strip()
    ]
    if not rows:
        raise bad_data(where, "there are no rows")
    return rows


def _readable(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line; only a newline ends a line."""
    try:
        yield from lines(path)
    except OSError as error:
        raise bad_data(str(path), f"the file cannot be read: {error.strerror}") from error


def _records(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return where each row is, and its columns by name."""
    try:
        found: list[tuple[str, Any]] = (
            list(read_table(path)) if path.suffix in (".csv", ".tsv") else list(_objects(path))
        )
    except json.JSONDecodeError as error:
        raise bad_data(str(path), f"the file is not valid: {error}") from error
    if not found or not all(isinstance(record, dict) for _, record in found):
        raise bad_data(str(path), "there are no rows in the file, or they have no named columns")
    return [(where, {str(key): x for key, x in record.items()}) for where, record in found]


def _objects(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".jsonl":
        for number, text in _readable(path):
            if text.strip():
                yield f"{path}:{number}", json.loads(text)
        return
    whole = json.loads("\n".join(text for _, text in _readable(path)))
    for number, value in enumerate(whole if isinstance(whole, list) else [whole]):
        yield f"{path}:[{number}]", value


def _texts(columns: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns as texts; a null is no column."""
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in columns.items()
        if value is not None
    }


def _unlabelled(where: str, record: Record, layout: Layout) -> Example:
    for column in layout.fields.values():
        if column not in record:
            there = ", ".join(map(repr, record))
            guess = did_you_mean(column, record)
            raise bad_data(where, f"no column {column!r}; there are {there}{guess}")
    return Example(fields_of(Row(where, record), layout), where=where)


def _without_layout(
    records: Sequence[tuple[str, Record]], names: Sequence[str]
) -> tuple[list[Example], bool]:
    """Return the rows of a task that generates its data: all columns but ``label`` are fields."""
    has_labels = "label" in records[0][1]
    rows = []
    for where, record in records:
        fields = {key: text for key, text in record.items() if key != "label"}
        label = record.get("label", "")
        if has_labels and label not in names:
            allowed = ", ".join(map(repr, names))
            raise bad_data(where, f"unknown label {label!r}; allowed: {allowed}")
        rows.append(Example(fields, names.index(label) if has_labels else 0, where))
    return rows, has_labels
