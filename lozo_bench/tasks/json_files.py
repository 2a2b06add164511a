"""Readers of ``.jsonl`` and ``.json`` files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lozo_bench.errors import bad_data
from lozo_bench.tasks.layout import Layout
from lozo_bench.tasks.lines import lines
from lozo_bench.tasks.records import rows_of
from lozo_bench.tasks.rows import Row

_OBJECT = '{"column": "value", ...}'
_TOO_DEEP = "there are too many brackets inside each other to read"


class _TwiceError(ValueError):
    """A key is twice in an object."""


def read_objects(path: Path, layout: Layout) -> Iterator[Row]:
    """Yield the rows of a file with one object per line.

    Raises:
        UserError: A line is malformed; the message names ``path:line``.
    """
    blank = 0
    for number, text in lines(path):
        where = f"{path}:{number}"
        if not text.strip():
            blank = blank or number
            continue
        if blank:
            raise bad_data(f"{path}:{blank}", "blank line between rows; remove it")
        try:
            value = _parse(text)
        except json.JSONDecodeError as error:
            raise bad_data(where, f"the line is not JSON: {error}") from error
        except (ValueError, RecursionError) as error:
            raise bad_data(where, _problem(error)) from error
        yield from _rows(where, value, layout, "the line")


def read_document(path: Path, layout: Layout) -> Iterator[Row]:
    """Yield the rows of a file with one object, a list of objects, or one object per line.

    Raises:
        UserError: The file is malformed; the message names the line, or the position in the list.
    """
    text = "\n".join(line for _, line in lines(path))
    try:
        value = _parse(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # after the first object: there is one per line
            yield from read_objects(path, layout)
            return
        raise bad_data(f"{path}:{error.lineno}", f"the file is not JSON: {error}") from error
    except (ValueError, RecursionError) as error:
        raise bad_data(str(path), _problem(error)) from error
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _rows(f"{path}:[{number}]", item, layout, "the item")
        return
    if isinstance(value, dict):
        _check_not_wrapped(path, value, layout)
    yield from _rows(str(path), value, layout, "the file")


def _rows(where: str, value: Any, layout: Layout, what: str) -> Iterator[Row]:
    if not isinstance(value, dict):
        lists = "; a .json file may hold a list of such objects" if isinstance(value, list) else ""
        raise bad_data(where, f"{what} is not a JSON object such as {_OBJECT}{lists}")
    try:
        yield from rows_of(where, value, layout.reads)
    except RecursionError as error:
        raise bad_data(where, _TOO_DEEP) from error


def _check_not_wrapped(path: Path, value: Mapping[str, Any], layout: Layout) -> None:
    """Refuse an object such as ``{"data": [...]}``, unless the list is one to explode."""
    missing = [column for column in layout.wanted if column.split(".")[0] not in value]
    if layout.explode or not missing:
        return
    for name, items in value.items():
        if isinstance(items, list) and items and isinstance(items[0], dict):
            raise bad_data(
                str(path),
                f"no column {missing[0]!r}: the rows are in the list {name!r}; what to do: make "
                "that list the whole file, or write its objects to a .jsonl file, one per line",
            )


def _parse(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _TwiceError(f"the key {twice!r} is twice in an object; keep one of them")
    return found


def _problem(error: ValueError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return _TOO_DEEP
    if isinstance(error, _TwiceError):
        return str(error)
    return "there is a number of more than 4,300 digits; write it as a text, in quotes"
