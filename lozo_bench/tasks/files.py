"""Reading ``.tsv``, ``.csv``, ``.jsonl`` and ``.json`` files; complaints name file and line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lozo_bench.errors import bad_data
from lozo_bench.tasks.records import rows_of
from lozo_bench.tasks.rows import Layout, Row, missing_column

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

EXTENSIONS = (".tsv", ".csv", ".jsonl", ".json")

Record = tuple[int, list[str]]


def find_file(directory: str, stems: Sequence[str], key: str) -> Path:
    """The file in ``directory`` named by the first of ``stems`` that has one.

    Raises UserError if there is none, or one in two formats. ``key`` is the config key that names
    the directory, for the message.
    """
    folder = Path(directory).expanduser()
    if not folder.is_dir():
        raise bad_data(str(folder), f"no such directory; {key} must name one")
    for stem in stems:
        found = [folder / (stem + ext) for ext in EXTENSIONS if (folder / (stem + ext)).is_file()]
        if len(found) > 1:
            names = " and ".join(path.name for path in found)
            raise bad_data(str(folder), f"both {names}; keep one of them")
        if found:
            return found[0]
    wanted = " or ".join(stem + ext for stem in stems for ext in EXTENSIONS)
    there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    raise bad_data(str(folder), f"no file {wanted} ({key}); there is {there}")


def read_full(directory: str, stem: str, key: str, layout: Layout) -> list[Row]:
    """The rows of a whole split: of ``stem``, or of ``stem_full`` where that is its name."""
    return read_rows(find_file(directory, [stem, f"{stem}_full"], key), layout)


def read_rows(path: Path, layout: Layout) -> list[Row]:
    """The wanted columns of every row of ``path``, in file order; the extension is the format.

    ``.tsv`` knows no quoting: rows end at a newline and fields at a tab, as in GLUE. ``.csv`` has
    standard quoting, ``.jsonl`` one object per line, ``.json`` one object in the whole file. Raises
    UserError with ``path:line``, and the place in the object where it has several rows.
    """
    if path.suffix not in EXTENSIONS:
        raise bad_data(str(path), f"unknown kind of file; allowed: {', '.join(EXTENSIONS)}")
    try:
        rows = list(READERS.get(path.suffix, _table)(path, layout))
    except OSError as error:
        raise bad_data(str(path), f"cannot be read: {error.strerror}") from error
    if not rows:
        raise bad_data(f"{path}:1", "there are no rows in the file, or none under its header")
    return rows


def _table(path: Path, layout: Layout) -> Iterator[Row]:
    records = _without_blank_end(path, _csv(path) if path.suffix == ".csv" else _tsv(path))
    if layout.explode or layout.options or layout.answers:
        allowed = ".jsonl or .json files, where task.source has explode, options or answers"
        raise bad_data(str(path), f"a table has one text in a column; allowed: {allowed}")
    if layout.columns is None:
        line, columns = next(records, (1, []))
        if not columns:
            raise bad_data(f"{path}:1", "the file is empty; a header line and rows are needed")
        _check_header(f"{path}:{line}", columns, layout)
    else:
        columns = list(layout.columns)
    places = {name: columns.index(name) for name in layout.wanted}
    for line, cells in records:
        _check_width(f"{path}:{line}", cells, columns, places, layout.ragged)
        if layout.ragged:
            last = columns[-1]
            values = {n: cells[-1] if n == last else cells[p] for n, p in places.items()}
        else:
            values = {name: cells[place] for name, place in places.items()}
        yield Row(f"{path}:{line}", values)


def _check_header(where: str, columns: list[str], layout: Layout) -> None:
    for name in layout.wanted:
        if name not in columns:
            raise missing_column(where, name, columns)
        if columns.count(name) > 1:
            raise bad_data(where, f"column {name!r} is there {columns.count(name)} times")


def _check_width(
    where: str, cells: list[str], columns: list[str], places: Mapping[str, int], ragged: bool
) -> None:
    if ragged:
        # every wanted column before the last, and the last one itself, need a value of their own
        needed = max((p for p in places.values() if p < len(columns) - 1), default=-1) + 2
        if len(cells) < needed:
            raise bad_data(where, f"{len(cells)} values; at least {needed} are needed")
    elif len(cells) != len(columns):
        raise bad_data(
            where, f"{len(cells)} values for {len(columns)} columns ({', '.join(columns)})"
        )


def _objects(path: Path, layout: Layout) -> Iterator[Row]:
    for line, (text,) in _without_blank_end(path, _jsonl(path)):
        where = f"{path}:{line}"
        try:
            values: Any = json.loads(text)
        except ValueError as error:
            raise bad_data(where, f"not JSON: {error}") from error
        if not isinstance(values, dict):
            raise bad_data(where, 'not a JSON object; a line looks like {"column": "value", ...}')
        yield from rows_of(where, values, layout.reads)


def _document(path: Path, layout: Layout) -> Iterator[Row]:
    text = "\n".join(line for _, line in _lines(path))
    try:
        values: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise bad_data(f"{path}:{error.lineno}", f"not JSON: {error}") from error
    if not isinstance(values, dict):
        raise bad_data(f"{path}:1", "not a JSON object; a file of one object is read")
    yield from rows_of(str(path), values, layout.reads)


READERS = {".jsonl": _objects, ".json": _document}


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    # A binary file breaks at \n only; str.splitlines would also break at U+2028 and its like.
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                problem = f"byte {raw[error.start]:#04x} is not UTF-8; save the file as UTF-8"
                raise bad_data(f"{path}:{number}", problem) from error
            yield number, text.removesuffix("\n").removesuffix("\r")


def _tsv(path: Path) -> Iterator[Record]:
    for number, text in _lines(path):
        yield number, text.split("\t") if text else []


def _jsonl(path: Path) -> Iterator[Record]:
    for number, text in _lines(path):
        yield number, [text] if text.strip() else []


def _csv(path: Path) -> Iterator[Record]:
    reader = csv.reader((text + "\n" for _, text in _lines(path)), strict=True)
    start = 1
    try:
        for cells in reader:
            yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise bad_data(f"{path}:{start}", f"not CSV: {error}") from error


def _without_blank_end(path: Path, records: Iterator[Record]) -> Iterator[Record]:
    blank = 0
    for line, cells in records:
        if not cells:
            blank = blank or line
        elif blank:
            raise bad_data(f"{path}:{blank}", "blank line between rows; take it out")
        else:
            yield line, cells
