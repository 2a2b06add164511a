"""Readers of ``.tsv``, ``.csv``, ``.jsonl`` and ``.json`` files. Errors name file and line."""

from __future__ import annotations

import csv
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lozo_bench.errors import UserError, bad_data, counted
from lozo_bench.tasks.json_files import read_document, read_objects
from lozo_bench.tasks.layout import Layout
from lozo_bench.tasks.lines import lines
from lozo_bench.tasks.odd_rows import warn_of
from lozo_bench.tasks.rows import Row, missing_column

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_LONGEST_FIELD = 2**31 - 1  # the largest limit that the csv module takes on every system

EXTENSIONS = (".tsv", ".csv", ".jsonl", ".json")

# The number of a line and the texts in it. A blank line has no texts.
Record = tuple[int, list[str]]


def find_file(directory: str, stems: Sequence[str], key: str) -> Path:
    """Return the file in ``directory`` for the first of ``stems`` that has a file.

    Args:
        directory: The folder to search.
        stems: File names without extension.
        key: The config key that names the folder, for error messages.

    Raises:
        UserError: There is no such file, or there are two in different formats.
    """
    folder = Path(directory).expanduser()
    if not folder.is_dir():
        raise bad_data(str(folder), f"there is no such directory; {key} must name one")
    for stem in stems:
        found = [folder / (stem + ext) for ext in EXTENSIONS if (folder / (stem + ext)).is_file()]
        if len(found) > 1:
            names = " and ".join(path.name for path in found)
            raise bad_data(str(folder), f"there are both {names}; keep one of them")
        if found:
            return found[0]
    wanted = " or ".join(stem + ext for stem in stems for ext in EXTENSIONS)
    present = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    raise bad_data(
        str(folder), f"there is no file {wanted} ({key}); the directory contains {present}"
    )


def read_full(directory: str, stem: str, key: str, layout: Layout) -> list[Row]:
    """Read all rows of a split from the file named ``stem``, or else ``stem`` plus ``_full``."""
    return read_rows(find_file(directory, [stem, f"{stem}_full"], key), layout)


def read_rows(path: Path, layout: Layout) -> list[Row]:
    """Read the columns that ``layout`` names from every row of a file, in file order.

    The extension determines the format. ``.tsv`` has no quoting: rows end at a newline and values
    at a tab, as in GLUE. ``.csv`` has standard quoting, ``.jsonl`` has one object per line, and
    ``.json`` has one object in the whole file, a list of objects, or one object per line.

    Raises:
        UserError: A row is malformed; the message names ``path:line``, and the position within the
            object if an object has several rows.
    """
    if path.suffix not in EXTENSIONS:
        raise bad_data(str(path), f"unknown file extension; allowed: {', '.join(EXTENSIONS)}")
    try:
        with _fields_of_any_length():
            rows = list(READERS.get(path.suffix, _table)(path, layout))
    except OSError as error:
        raise bad_data(str(path), f"the file cannot be read: {error.strerror}") from error
    if not rows:
        raise bad_data(f"{path}:1", "there are no rows in the file, or no rows below its header")
    return rows


def read_table(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield where each row of a ``.csv`` or ``.tsv`` file is, and all its columns by name.

    Raises:
        UserError: The file cannot be read, or a row has more or fewer values than the header.
    """
    try:
        with _fields_of_any_length():
            records = list(_whole_rows(path))
    except OSError as error:
        raise bad_data(str(path), f"the file cannot be read: {error.strerror}") from error
    columns = records[0][1] if records else []
    for name in columns:
        if columns.count(name) > 1:
            raise _twice(f"{path}:{records[0][0]}", name, columns)
    for line, cells in records[1:]:
        _check_width(f"{path}:{line}", cells, columns, {}, ragged=False)
        yield f"{path}:{line}", dict(zip(columns, cells, strict=True))


def _whole_rows(path: Path) -> Iterator[Record]:
    return _without_trailing_blanks(path, _csv(path) if path.suffix == ".csv" else _tsv(path))


def _table(path: Path, layout: Layout) -> Iterator[Row]:
    records = _whole_rows(path)
    if layout.explode or layout.options or layout.answers:
        allowed = ".jsonl or .json files, if task.source has explode, options or answers"
        raise bad_data(str(path), f"a column of a table holds one text; allowed: {allowed}")
    if layout.columns is None:
        line, columns = next(records, (1, []))
        if not columns:
            raise bad_data(f"{path}:1", "the file is empty; it needs a header line and rows")
        _check_header(f"{path}:{line}", columns, layout)
    else:
        columns = list(layout.columns)
    indices = {name: columns.index(name) for name in layout.wanted}
    longer: list[str] = []
    for line, cells in records:
        if layout.as_published and path.suffix == ".tsv" and len(cells) > len(columns):
            longer += [] if layout.ragged else [f"{path}:{line}"]
        else:
            _check_width(f"{path}:{line}", cells, columns, indices, layout.ragged)
        if layout.ragged:
            last = columns[-1]
            values = {
                name: cells[-1] if name == last else cells[index] for name, index in indices.items()
            }
        else:
            values = {name: cells[index] for name, index in indices.items()}
        yield Row(f"{path}:{line}", values)
    warn_of(
        longer,
        f"the row has more than {counted(len(columns), 'value')}; those after column "
        f"{columns[-1]!r} are not read, as in LM-BFF's code",
    )


def _check_header(where: str, columns: list[str], layout: Layout) -> None:
    for name in layout.wanted:
        if name not in columns:
            raise missing_column(where, name, columns)
        if columns.count(name) > 1:
            raise _twice(where, name, columns)


def _twice(where: str, name: str, columns: list[str]) -> UserError:
    return bad_data(where, f"column {name!r} is in the header {columns.count(name)} times")


def _check_width(
    where: str, cells: list[str], columns: list[str], indices: Mapping[str, int], ragged: bool
) -> None:
    if ragged:
        # The columns that are read, up to the last but one, and the last column each need a value.
        before_last = [index for index in indices.values() if index < len(columns) - 1]
        needed = max(before_last, default=-1) + 2
        if len(cells) < needed:
            problem = f"the row has {counted(len(cells), 'value')}; it needs at least {needed}"
            raise bad_data(where, problem)
    elif len(cells) != len(columns):
        raise bad_data(
            where,
            f"the row has {counted(len(cells), 'value')} for {counted(len(columns), 'column')} "
            f"({', '.join(columns)})",
        )


READERS = {".jsonl": read_objects, ".json": read_document}


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    """Let the csv module read fields of more than its default of 128 KiB; its limit is global."""
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _tsv(path: Path) -> Iterator[Record]:
    for number, text in lines(path):
        yield number, text.split("\t") if text else []


def _csv(path: Path) -> Iterator[Record]:
    reader = csv.reader((text + "\n" for _, text in lines(path)), strict=True)
    start = 1
    try:
        for cells in reader:
            yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise bad_data(f"{path}:{start}", f"the row is not CSV: {error}") from error


def _without_trailing_blanks(path: Path, records: Iterator[Record]) -> Iterator[Record]:
    """Drop blank lines at the end of a file. Raise UserError for a blank line between rows."""
    first_blank = 0
    for line, cells in records:
        if not cells:
            first_blank = first_blank or line
        elif first_blank:
            raise bad_data(f"{path}:{first_blank}", "blank line between rows; remove it")
        else:
            yield line, cells
