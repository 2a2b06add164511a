"""Nested records, as of JSON, become rows: by dotted columns, a row for each item of a list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lozo_bench.errors import bad_data
from lozo_bench.tasks.rows import Row, Wanted, missing_column

if TYPE_CHECKING:
    from collections.abc import Iterator

# Between the spans of one answer where they are one text (see `Wanted.join_spans`).
SPAN_SEPARATOR = "; "

# The keys of an answer as DROP's files have it: a number, a date or spans, the others blank.
DROP_ANSWER = {"number", "date", "spans"}


def rows_of(where: str, record: Mapping[str, Any], wanted: Wanted) -> Iterator[Row]:
    """The rows of one record: one, or one for each item of the lists to explode.

    Raises UserError naming ``where``, with the place in the record, and the column.
    """
    for places, flat in _exploded(where, record, wanted.explode):
        here = _spot(where, places)
        texts = {name: as_text(here, name, _at(here, flat, name)) for name in wanted.texts}
        yield Row(here, texts, _options(here, flat, wanted), _answers(here, flat, wanted))


def as_text(where: str, column: str, value: object) -> str:
    """A text, whole number or truth value as text. Raises UserError for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    raise bad_data(where, f"column {column!r} holds {value!r}; allowed: a text or a whole number")


def _exploded(
    where: str, record: Mapping[str, Any], paths: tuple[str, ...]
) -> Iterator[tuple[dict[str, str], Mapping[str, Any]]]:
    """The record with one item in the place of each list, and which items: ``{path: "[3]"}``.

    The path ``*`` stands for the values of the record itself, by their keys.
    """
    if not paths:
        yield {}, record
        return
    *before, path = paths
    for places, outer in _exploded(where, record, tuple(before)):
        if path == "*":
            for key, value in outer.items():
                yield {**places, path: key}, {path: value}
            continue
        here = _spot(where, places)
        items = _at(here, outer, path)
        if not isinstance(items, list):
            raise bad_data(here, f"column {path!r} holds {_short(items)}; allowed: a list")
        for number, item in enumerate(items):
            yield {**places, path: f"[{number}]"}, _with(outer, path.split("."), item)


def _with(record: Mapping[str, Any], names: list[str], item: object) -> dict[str, Any]:
    name, *rest = names
    return {**record, name: _with(record[name], rest, item) if rest else item}


def _spot(where: str, places: Mapping[str, str]) -> str:
    """``where`` and the place within: ``data[3].paragraphs[0].qas[2]``."""
    if not places:
        return where
    names, parts = [*places][-1].split("."), []
    for end, name in enumerate(names, start=1):
        item = places.get(".".join(names[:end]), "")
        parts.append(item if name == "*" else name + item)
    return f"{where}:{'.'.join(parts)}"


def _at(where: str, record: Mapping[str, Any], column: str) -> Any:
    """The value of a column; a list on the way gives the list of its items' values."""
    return record[column] if column in record else _step(where, record, column, column.split("."))


def _step(where: str, value: Any, column: str, names: list[str]) -> Any:
    if not names:
        return value
    if isinstance(value, list):
        return [_step(where, item, column, names) for item in value]
    name, *rest = names
    if not isinstance(value, Mapping):
        raise bad_data(where, f"no column {column!r}: {name!r} is looked for in {_short(value)}")
    if name not in value:
        before = column.split(".")[: -len(names)]
        raise missing_column(where, column, [".".join([*before, key]) for key in value])
    return _step(where, value[name], column, rest)


def _options(where: str, record: Mapping[str, Any], wanted: Wanted) -> tuple[str, ...]:
    if wanted.options is None:
        return ()
    found = _at(where, record, wanted.options)
    if not isinstance(found, list) or not found:
        raise bad_data(where, f"column {wanted.options!r} holds {_short(found)}; allowed: a list")
    if wanted.places_in is None:
        texts = [as_text(where, wanted.options, item) for item in found]
    else:  # an entity may stand in the text many times
        whole = as_text(where, wanted.places_in, _at(where, record, wanted.places_in))
        texts = list(dict.fromkeys(_place(where, wanted.options, whole, item) for item in found))
    for text in texts:
        if not text.strip():
            raise bad_data(where, f"a text in column {wanted.options!r} is blank")
    return tuple(texts)


def _place(where: str, column: str, whole: str, place: object) -> str:
    """``whole`` from ``start`` through ``end``: ReCoRD's ends are inclusive."""
    ends = place if isinstance(place, Mapping) else {}
    start, end = ends.get("start"), ends.get("end")
    if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start <= end < len(whole):
        allowed = f'{{"start": from 0, "end": to {len(whole) - 1}}}'
        raise bad_data(where, f"column {column!r} holds {_short(place)}; allowed: {allowed}")
    return whole[start : end + 1]


def _answers(where: str, record: Mapping[str, Any], wanted: Wanted) -> tuple[str, ...]:
    """The answers of all columns, each text once; none where DROP's are of two kinds at once.

    The hub's data leaves those rows out (9 of train and 1 of dev), so that with them the rows that
    a seed draws would be others.
    """
    texts: list[str] = []
    for column in wanted.answers:
        for item in _flat(_at(where, record, column)):
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
    """One annotator's answer: its number, its date, or its spans; None if it has two of them."""
    number = as_text(where, column, answer["number"])
    date, spans = answer["date"], answer["spans"]
    if not isinstance(date, Mapping) or not isinstance(spans, list):
        raise bad_data(where, f"column {column!r} holds {_short(answer)}; allowed: DROP's answers")
    parts = [as_text(where, column, date.get(key, "")) for key in ("day", "month", "year")]
    day = " ".join(part for part in parts if part)
    kinds = [[number], [day], [as_text(where, column, span) for span in spans]]
    given = [kind for kind in kinds if any(kind)]
    if len(given) > 1:
        return None
    return given[0] if given else []


def _flat(value: object) -> Iterator[object]:
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
