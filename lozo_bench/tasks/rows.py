"""Rows of a data set, the layout that they must have, and their conversion into examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lozo_bench.errors import UserError, bad_data, bad_value, counted, did_you_mean, raise_all
from lozo_bench.tasks.base import Example
from lozo_bench.tasks.labels import unknown_label
from lozo_bench.tasks.odd_rows import warn_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


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


@dataclass(frozen=True, slots=True)
class Wanted:
    """The columns to read from a record. In nested records, ``a.b`` is the value ``b`` of ``a``.

    Attributes:
        texts: Columns that hold one text each.
        label: The one of these columns that holds the label, if there is one.
        options: A column that holds a list of options.
        places_in: If given, each option is a span (``start``, ``end``) of the text in this column.
        answers: Columns that hold any number of answers.
        explode: Lists whose items each become a row; ``list.column`` then is the item's value.
        join_spans: Join the spans of one annotation to a single answer (DROP).
    """

    texts: tuple[str, ...]
    options: str | None = None
    label: str | None = None
    places_in: str | None = None
    answers: tuple[str, ...] = ()
    explode: tuple[str, ...] = ()
    join_spans: bool = False


@dataclass(frozen=True, slots=True)
class RowOptions:
    """Where the options are, if every row has its own.

    Attributes:
        column: The column that holds the list of options.
        places_in: If given, each option is a span (``start``, ``end``) of the text in this column.
            Each text is an option once, in alphabetical order (see conf/task/record.yaml).
        into: If given, each option becomes the text of this field with the option in place of
            ``blank``.
        blank: The part of the field ``into`` that the options replace.
    """

    column: str
    places_in: str | None = None
    into: str | None = None
    blank: str | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """What the columns of a data set contain.

    In nested records, the column ``a.b`` is the value ``b`` of ``a``.

    Attributes:
        fields: The column of each text field. Prompts refer to fields, never to columns.
        label: The column of the label. None if the data has answers instead.
        labels: The labels of the classes; the class id is the index in this list.
        columns: The column names of a table that has no header line.
        ragged: Whether the number of columns before the last one varies from row to row (SNLI: one
            column per annotator). The last value of a row belongs to the last column name.
        skip_labels: Labels of rows without a gold label. These rows are skipped.
        same_labels: Other spellings of labels, with the label that each of them means.
        explode: Lists whose items each become a row.
        options: The row's own options, see `RowOptions`. The correct ones are those among the texts
            of ``answers``, or the one whose index ``label`` gives.
        answers: The columns of the answers. Without ``options``, the model generates the answer.
        join_spans: Join the spans of one annotation to a single answer (DROP).
        skip_unanswered: Skip rows without an answer. If False, such a row is an error.
        values: By field, a mapping that replaces the whole text of the field.
        replace: By field, a mapping that replaces parts of the text of the field.
        spans: By field, another field that contains it. The field is respelled as in the other one.
        as_published: Read damaged rows as LM-BFF's code does, with a warning: a blank text is an
            empty sentence, and values after the last column of a ``.tsv`` file are not read.

    Raises:
        UserError: A value is not allowed; its key is relative to ``task.source``.
    """

    fields: Mapping[str, str]
    label: str | None
    labels: Sequence[str]
    columns: Sequence[str] | None = None
    ragged: bool = False
    skip_labels: Sequence[str] = ()
    same_labels: Mapping[str, str] = field(default_factory=dict)
    explode: Sequence[str] = ()
    options: RowOptions | None = None
    answers: Sequence[str] = ()
    join_spans: bool = False
    skip_unanswered: bool = False
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    replace: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    spans: Mapping[str, str] = field(default_factory=dict)
    as_published: bool = False

    def __post_init__(self) -> None:
        """Check what the types cannot express."""
        raise_all(self._bad_values())

    def _bad_values(self) -> Iterator[UserError]:
        if not self.fields:
            yield bad_value("fields", dict(self.fields), "at least one 'field: column' pair")
        if self.label is None and not self.answers:
            yield bad_value(
                "label", None, "the column of the label, unless task.source.answers is given"
            )
        few = len(self.labels) < (2 if self.label is not None else 0)
        if few or len(set(self.labels)) < len(self.labels):
            yield bad_value("labels", list(self.labels), "two or more different labels")
        if self.columns is not None and not set(self.wanted) <= set(self.columns):
            yield bad_value(
                "columns", list(self.columns), f"a list that contains {', '.join(self.wanted)}"
            )
        for unknown in set(self.same_labels.values()) - set(self.labels):
            yield bad_value("same_labels", unknown, f"one of {', '.join(self.labels)}")
        yield from self._unknown_fields()

    def _unknown_fields(self) -> Iterator[UserError]:
        named = {
            "values": [*self.values],
            "replace": [*self.replace],
            "spans": [*self.spans, *self.spans.values()],
            "options.into": [self.options.into] if self.options and self.options.into else [],
        }
        allowed = f"one of the fields {', '.join(self.fields)}"
        for key, names in named.items():
            for name in [name for name in dict.fromkeys(names) if name not in self.fields]:
                yield bad_value(key, name, allowed + did_you_mean(name, self.fields))

    @property
    def wanted(self) -> tuple[str, ...]:
        """The required columns that hold one text each."""
        return (*self.fields.values(), *([] if self.label is None else [self.label]))

    @property
    def reads(self) -> Wanted:
        """All columns that are read from a record."""
        options = self.options
        return Wanted(
            texts=self.wanted,
            options=options.column if options else None,
            label=self.label,
            places_in=options.places_in if options else None,
            answers=tuple(self.answers),
            explode=tuple(self.explode),
            join_spans=self.join_spans,
        )


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
