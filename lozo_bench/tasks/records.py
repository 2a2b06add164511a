"""Conversion of nested records, such as JSON objects, into rows with dotted column names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lozo_bench.errors import bad_data
from lozo_bench.tasks.layout import Wanted
from lozo_bench.tasks.rows import Row, missing_column

if TYPE_CHECKING:
    from collections.abc import Iterator

_HALF_A_PAIR = re.compile("[\ud800-\udfff]")

# Stands between the spans of an answer that are joined to one text (see `Wanted.join_spans`).
SPAN_SEPARATOR = "; "

# The keys of an answer in DROP's files. One of the three has a value and the others are blank.
DROP_ANSWER = {"number", "date", "spans"}


def rows_of(where: str, record: Mapping[str, Any], wanted: Wanted) -> Iterator[Row]:
    """Yield the rows of one record: one row, or one for each item of the lists to explode.

    Raises:
        UserError: A value is malformed; the message names ``where``, the position within the record
            and the column.
    """
    for positions, flat in _explode(where, record, wanted.explode):
        here = _location(where, positions)
        values = {name: _value(here, flat, name) for name in wanted.texts}
        if wanted.label is not None:
            values[wanted.label] = _as_label(values[wanted.label])
        texts = {name: as_text(here, name, value) for name, value in values.items()}
        yield Row(here, texts, _options(here, flat, wanted), _answers(here, flat, wanted))


def _as_label(value: object) -> object:
    """Return a label of pandas, which writes the whole numbers of a column with a gap as 1.0."""
    return str(value) if isinstance(value, float) and value.is_integer() else value


def as_text(where: str, column: str, value: object) -> str:
    """Return a text, integer or boolean as text. Raise UserError for any other value."""
    if isinstance(value, str):
        if not value.isascii() and (half := _HALF_A_PAIR.search(value)):
            problem = f"column {column!r} has half a surrogate pair, {half[0]!r}"
            raise bad_data(where, f"{problem}, which is no character; remove it or write both")
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    raise bad_data(where, f"column {column!r} holds {value!r}; allowed: a text or a whole number")


def _explode(
    where: str, record: Mapping[str, Any], paths: tuple[str, ...]
) -> Iterator[tuple[dict[str, str], Mapping[str, Any]]]:
    """Yield copies of the record in which one item replaces each list.

    Each copy comes with the positions of the items by path, for example ``{"data": "[3]"}``. The
    path ``*`` means the values of the record itself; their positions are their keys.
    """
    if not paths:
        yield {}, record
        return
    *before, path = paths
    for positions, outer in _explode(where, record, tuple(before)):
        if path == "*":
            for key, value in outer.items():
                yield {**positions, path: key}, {path: value}
            continue
        here = _location(where, positions)
        items = _value(here, outer, path)
        if not isinstance(items, list):
            raise bad_data(here, f"column {path!r} holds {_shorten(items)}; allowed: a list")
        for number, item in enumerate(items):
            yield {**positions, path: f"[{number}]"}, _replace_at(outer, path.split("."), item)


def _replace_at(record: Mapping[str, Any], names: list[str], item: object) -> dict[str, Any]:
    name, *rest = names
    return {**record, name: _replace_at(record[name], rest, item) if rest else item}


def _location(where: str, positions: Mapping[str, str]) -> str:
    """Return ``where`` plus the position in the record: ``:data[3].paragraphs[0].qas[2]``."""
    if not positions:
        return where
    names, parts = [*positions][-1].split("."), []
    for end, name in enumerate(names, start=1):
        item = positions.get(".".join(names[:end]), "")
        parts.append(item if name == "*" else name + item)
    return f"{where}:{'.'.join(parts)}"


def _value(where: str, record: Mapping[str, Any], column: str) -> Any:
    """Return the value of a column. A list on the path gives a list with the value of each item."""
    return record[column] if column in record else _follow(where, record, column, column.split("."))


def _follow(where: str, value: Any, column: str, names: list[str]) -> Any:
    if not names:
        return value
    if isinstance(value, list):
        return [_follow(where, item, column, names) for item in value]
    name, *rest = names
    if not isinstance(value, Mapping):
        raise bad_data(
            where, f"no column {column!r}: {_shorten(value)} is not an object with {name!r}"
        )
    if name not in value:
        before = column.split(".")[: -len(names)]
        raise missing_column(where, column, [".".join([*before, key]) for key in value])
    return _follow(where, value[name], column, rest)


def _options(where: str, record: Mapping[str, Any], wanted: Wanted) -> tuple[str, ...]:
    if wanted.options is None:
        return ()
    found = _value(where, record, wanted.options)
    if found == []:
        problem = f"column {wanted.options!r} is an empty list, so there is nothing to choose from"
        advice = "remove the row, or use a task whose answers are written (task.answer)"
        raise bad_data(where, f"{problem}; what to do: {advice}")
    if not isinstance(found, list):
        allowed = "a list of texts"
        raise bad_data(
            where, f"column {wanted.options!r} holds {_shorten(found)}; allowed: {allowed}"
        )
    if wanted.places_in is None:
        texts = [as_text(where, wanted.options, item) for item in found]
    else:  # an entity may occur several times; alphabetical as in datasets' super_glue.py of 2021
        text = as_text(where, wanted.places_in, _value(where, record, wanted.places_in))
        texts = sorted({_span(where, wanted.options, text, item) for item in found})
    if not all(option.strip() for option in texts):
        raise bad_data(where, f"a text in column {wanted.options!r} is blank")
    return tuple(texts)


def _span(where: str, column: str, text: str, span: object) -> str:
    """Return ``text`` from the span's ``start`` to its ``end``, which is inclusive in ReCoRD."""
    ends = span if isinstance(span, Mapping) else {}
    start, end = ends.get("start"), ends.get("end")
    if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start <= end < len(text):
        allowed = f'{{"start": N, "end": M}} with 0 <= N <= M <= {len(text) - 1}'
        raise bad_data(where, f"column {column!r} holds {_shorten(span)}; allowed: {allowed}")
    return text[start : end + 1]


def _answers(where: str, record: Mapping[str, Any], wanted: Wanted) -> tuple[str, ...]:
    """Return the different answers of all columns.

    There are none if an answer of DROP has values of two kinds. The data on the hub omits these
    rows (9 train rows and 1 dev row); if they were kept, a seed would draw other rows.
    """
    texts: list[str] = []
    for column in wanted.answers:
        for item in _flatten(_value(where, record, column)):
            spans = (
                _drop_spans(where, column, item)
                if isinstance(item, Mapping) and item.keys() >= DROP_ANSWER
                else [as_text(where, column, item)]
            )
            if spans is None:
                return ()
            texts += [SPAN_SEPARATOR.join(spans)] if wanted.join_spans and spans else spans
    return tuple(dict.fromkeys(text for text in texts if text.strip()))


def _drop_spans(where: str, column: str, answer: Mapping[str, Any]) -> list[str] | None:
    """Return the number, the date or the spans of one annotation; None if it has two of these."""
    number = as_text(where, column, answer["number"])
    date, spans = answer["date"], answer["spans"]
    if not isinstance(date, Mapping) or not isinstance(spans, list):
        allowed = "an answer as in DROP's files"
        raise bad_data(where, f"column {column!r} holds {_shorten(answer)}; allowed: {allowed}")
    parts = [as_text(where, column, date.get(key, "")) for key in ("day", "month", "year")]
    day = " ".join(part for part in parts if part)
    kinds = [[number], [day], [as_text(where, column, span) for span in spans]]
    given = [kind for kind in kinds if any(kind)]
    if len(given) > 1:
        return None
    return given[0] if given else []


def _flatten(value: object) -> Iterator[object]:
    if isinstance(value, list):
        for item in value:
            yield from _flatten(item)
    else:
        yield value


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
