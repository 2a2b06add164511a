"""Rows of a data set, and their conversion into examples by the data set's layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lozo_bench.errors import bad_data, counted, did_you_mean
from lozo_bench.tasks.base import Example
from lozo_bench.tasks.labels import unknown_label
from lozo_bench.tasks.layout import Layout, RowOptions
from lozo_bench.tasks.odd_rows import warn_of


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a data set, before its columns are interpreted.

    Attributes:
        where: Where the row was read (``path:line``), for error messages.
        values: The texts of the row by column name.
        options: The texts of the column that holds the row's own options.
        answers: The texts of the columns that hold answers.
    """

    where: str
    values: Mapping[str, str]
    options: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


def missing_column(where: str, column: str, present: Iterable[str]) -> Exception:
    """Return the error for a missing column. Its message lists the columns that are present."""
    names = list(present)
    listed = ", ".join(repr(name) for name in names)
    return bad_data(where, f"no column {column!r}; there are {listed}{did_you_mean(column, names)}")


def label_of(row: Row, layout: Layout) -> str:
    """Return the label of a row in the spelling of ``layout.labels``."""
    assert layout.label is not None
    label = row.values[layout.label]
    return layout.same_labels.get(label, label)


def labelled(rows: Iterable[Row], layout: Layout) -> list[Row]:
    """Return the rows that are not to be skipped.

    Raises:
        UserError: A row has an unknown label, or it has no answer although it needs one.
    """
    known, skipped = frozenset(layout.labels), frozenset(layout.skip_labels)
    kept: list[Row] = []
    unknown: list[tuple[str, str]] = []
    for row in rows:
        if layout.answers and not row.answers:
            if not layout.skip_unanswered:
                raise bad_data(row.where, f"there is no answer in {', '.join(layout.answers)}")
            continue
        label = None if layout.label is None else label_of(row, layout)
        if label is None or label in known:
            kept.append(row)
        elif label not in skipped:
            unknown.append((row.where, label))
    if unknown:
        raise unknown_label(unknown, layout.label or "", layout.labels)
    return kept


def to_examples(rows: Iterable[Row], layout: Layout) -> list[Example]:
    """Convert rows that `labelled` returned into examples.

    Raises:
        UserError: A text is blank, or the row does not match the layout.
    """
    rows = list(rows)
    if layout.as_published:
        columns = layout.fields.values()
        blank = [row.where for row in rows if not all(row.values[c].strip() for c in columns)]
        warn_of(blank, "a text is blank and is read as an empty sentence, as LM-BFF's code does")
    return [_example(row, layout) for row in rows]


def _example(row: Row, layout: Layout) -> Example:
    fields = fields_of(row, layout)
    label = 0 if layout.label is None else list(layout.labels).index(label_of(row, layout))
    if layout.options is None:
        return Example(fields, label, row.where, answers=row.answers)
    if layout.answers:
        golds = _golds(row)
        label = golds[0]
    else:
        golds = ()
        if label >= len(row.options):
            raise bad_data(
                row.where,
                f"the label is option {label}, but the row has "
                f"{counted(len(row.options), 'option')}",
            )
    return Example(fields, label, row.where, _options(row, fields, layout.options), golds)


def fields_of(row: Row, layout: Layout) -> dict[str, str]:
    """Return the texts of a row by field name.

    Raises:
        UserError: A text is blank, or its field has no translation of it.
    """
    fields = {name: row.values[column] for name, column in layout.fields.items()}
    for name, text in fields.items():
        if not text.strip() and not layout.as_published:
            raise bad_data(row.where, f"the text in column {layout.fields[name]!r} is blank")
    for name, translations in layout.values.items():
        if fields[name] not in translations:
            allowed = ", ".join(repr(value) for value in translations)
            column = layout.fields[name]
            given = f"column {column!r} holds {fields[name]!r}"
            raise bad_data(row.where, f"{given}; allowed: {allowed}")
        fields[name] = translations[fields[name]]
    for name, parts in layout.replace.items():
        for old, new in parts.items():
            fields[name] = fields[name].replace(old, new)
    for name, container in layout.spans.items():
        fields[name] = _respell(fields[name], fields[container])
    return fields


def _respell(span: str, text: str) -> str:
    """Return ``span`` in the spelling that occurs in ``text``, as SuperGLUE's wsc.fixed does it.

    The span may differ in the case of its first letter, in periods at its end and in line breaks.
    A span that does not occur in any of these spellings is returned unchanged.
    """
    bare = span.rstrip(".").replace("\n", " ")
    spellings = (span, bare, bare[:1].swapcase() + bare[1:])
    return next((spelling for spelling in spellings if spelling in text), span)


def _options(row: Row, fields: Mapping[str, str], options: RowOptions) -> tuple[str, ...]:
    if options.into is None or options.blank is None:
        return row.options
    text = fields[options.into]
    if options.blank not in text:
        problem = f"the field {options.into!r} has no {options.blank!r} for the options to replace"
        raise bad_data(row.where, problem)
    return tuple(text.replace(options.blank, option) for option in row.options)


def _golds(row: Row) -> tuple[int, ...]:
    """Return the indices of the options that are answers, in alphabetical order of the answers.

    MeZO trains on the first answer, and the data on the hub has them in alphabetical order.
    """
    golds = [row.options.index(a) for a in sorted(set(row.answers)) if a in row.options]
    if not golds:
        answers = ", ".join(repr(answer) for answer in row.answers)
        raise bad_data(row.where, f"none of the answers {answers} is among the options")
    return tuple(golds)
