"""Reads rows to answer from a file of the user's or from standard input; labels are optional."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lozo_bench.config.schema import TaskConfig
from lozo_bench.errors import UserError, bad_data, did_you_mean
from lozo_bench.tasks.base import Example
from lozo_bench.tasks.files import EXTENSIONS, read_rows
from lozo_bench.tasks.rows import Layout, Row, fields_of, labelled, to_examples

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
    return Input(examples, has_labels, own)


def _of_records(
    path: Path, own: Sequence[Mapping[str, Any]], layout: Layout | None, names: Sequence[str]
) -> tuple[list[Example], bool]:
    """Return the rows of a file with columns, and whether they have labels or answers."""
    records = [{key: _as_text(value) for key, value in record.items()} for record in own]
    if layout is None:
        return _without_layout(path, records, names)
    known = {layout.label, *layout.answers, layout.options.column if layout.options else None}
    known.discard(None)
    has = {column for column in known if column in records[0]}
    if has == known:
        return to_examples(labelled(read_rows(path, layout), layout), layout), True
    if layout.options:
        missing = ", ".join(sorted(str(column) for column in known - has))
        raise bad_data(
            f"{path}:1", f"no column {missing}; rows of this task have their own options"
        )
    return [
        _unlabelled(f"{path}:{n}", record, layout) for n, record in enumerate(records, 2)
    ], False


def _lines(given: str, task: TaskConfig, layout: Layout | None) -> list[Example]:
    """Return a row for each line that is not blank."""
    fields = list(layout.fields) if layout else re.findall(r"\{(\w+)", task.prompt or "")
    if len(set(fields)) != 1:
        allowed = f"a .csv, .tsv, .jsonl or .json file with the columns {', '.join(fields)}"
        raise UserError(f"--input: a row of this task has several texts; allowed: {allowed}")
    if given == STANDARD_INPUT:
        where, text = "standard input", sys.stdin.read()
    else:
        where, text = given, _text(Path(given))
    rows = [
        Example({fields[0]: line}, where=f"{where}:{number}")
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip()
    ]
    if not rows:
        raise bad_data(where, "there are no rows")
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise bad_data(str(path), f"the file cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise bad_data(str(path), "the file is not text in UTF-8") from error


def _records(path: Path) -> list[dict[str, Any]]:
    """Return the columns of each row by name."""
    text = _text(path)
    try:
        if path.suffix == ".jsonl":
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
        elif path.suffix == ".json":
            whole = json.loads(text)
            found = whole if isinstance(whole, list) else [whole]
        else:
            found = list(_table(text, tab_separated=path.suffix == ".tsv"))
    except ValueError as error:
        raise bad_data(str(path), f"the file is not valid: {error}") from error
    if not found or not all(isinstance(record, dict) for record in found):
        raise bad_data(str(path), "there are no rows in the file, or they have no named columns")
    return [{str(key): value for key, value in record.items()} for record in found]


def _table(text: str, tab_separated: bool) -> csv.DictReader[str]:
    if tab_separated:  # as in GLUE, without quoting
        return csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    return csv.DictReader(io.StringIO(text))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _unlabelled(where: str, record: Record, layout: Layout) -> Example:
    for column in layout.fields.values():
        if column not in record:
            there = ", ".join(map(repr, record))
            guess = did_you_mean(column, record)
            raise bad_data(where, f"no column {column!r}; there are {there}{guess}")
    return Example(fields_of(Row(where, record), layout), where=where)


def _without_layout(
    path: Path, records: Sequence[Record], names: Sequence[str]
) -> tuple[list[Example], bool]:
    """Return the rows of a task that generates its data: all columns but ``label`` are fields."""
    has_labels = "label" in records[0]
    rows = []
    for number, record in enumerate(records, 2):
        fields = {key: text for key, text in record.items() if key != "label"}
        label = record.get("label", "")
        if has_labels and label not in names:
            allowed = ", ".join(map(repr, names))
            raise bad_data(f"{path}:{number}", f"unknown label {label!r}; allowed: {allowed}")
        rows.append(Example(fields, names.index(label) if has_labels else 0, f"{path}:{number}"))
    return rows, has_labels
