"""Rows as they were read, the layout they must have, and how they become examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lozo_bench.errors import bad_data, bad_value, did_you_mean
from lozo_bench.tasks.base import Example

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Row:
    """One row: ``where`` it came from (``path:line``) and its ``values`` by column name.

    ``options`` and ``answers`` are the texts of columns that hold several.
    """

    where: str
    values: Mapping[str, str]
    options: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which columns are read; ``a.b`` is ``b`` within ``a`` where records are nested.

    ``texts`` hold one text each, ``options`` and ``answers`` any number. Options may be places
    (``start``, ``end``) in the text of ``places_in``. ``explode`` names lists of which each item
    makes a row of its own, so that ``list.column`` is that item's. ``join_spans`` makes one answer
    of the several spans of one annotation (DROP).
    """

    texts: tuple[str, ...]
    options: str | None = None
    places_in: str | None = None
    answers: tuple[str, ...] = ()
    explode: tuple[str, ...] = ()
    join_spans: bool = False


@dataclass(frozen=True, slots=True)
class RowOptions:
    """Options that every row brings itself: the texts of ``column``.

    They may be places (``start``, ``end``) in the text of column ``places_in``. With ``into``, an
    option is that field's text with the option in place of ``blank``.
    """

    column: str
    places_in: str | None = None
    into: str | None = None
    blank: str | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Which columns of a data set hold what; ``a.b`` is ``b`` within ``a`` in nested records.

    ``fields`` names the column of each text field (a prompt knows fields, never columns) and
    ``label`` the column of the label, whose class id is its place in ``labels``; ``same_labels``
    translates other spellings into those. Rows with a label in ``skip_labels`` carry no gold label
    and are left out. A table without a header line has its ``columns`` named here. In a ``ragged``
    table the number of columns before the last one varies (SNLI, by annotators), and the last name
    of the header is the last value of the row.

    ``explode`` names lists of which each item becomes a row. ``options`` are the row's own, of
    which those are right that are among the texts of ``answers``, or the one that ``label`` says.
    Without options, ``answers`` are what may be written; with ``join_spans`` the spans of one
    annotation are one answer. Rows without an answer are an error, or with ``skip_unanswered`` left
    out.

    Of a field's text, ``values`` translates the whole and ``replace`` parts; ``spans`` puts a field
    that should stand word for word in another field as it stands there.

    Raises UserError, with keys relative to ``task.source``.
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

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        if not self.fields:
            raise bad_value("fields", dict(self.fields), "at least one 'field: column' pair")
        if self.label is None and not self.answers:
            raise bad_value("label", None, "the label's column, or columns for answers")
        few = len(self.labels) < (2 if self.label is not None else 0)
        if few or len(set(self.labels)) < len(self.labels):
            raise bad_value("labels", list(self.labels), "two or more different labels")
        if self.columns is not None and not set(self.wanted) <= set(self.columns):
            raise bad_value("columns", list(self.columns), f"a list with {', '.join(self.wanted)}")
        for other in set(self.same_labels.values()) - set(self.labels):
            raise bad_value("same_labels", other, f"one of {', '.join(self.labels)}")
        self._check_fields()

    def _check_fields(self) -> None:
        named = {
            "values": [*self.values],
            "replace": [*self.replace],
            "spans": [*self.spans, *self.spans.values()],
            "options.into": [self.options.into] if self.options and self.options.into else [],
        }
        for key, names in named.items():
            for name in names:
                if name not in self.fields:
                    allowed = f"a field of {', '.join(self.fields)}"
                    raise bad_value(key, name, allowed + did_you_mean(name, self.fields))

    @property
    def wanted(self) -> tuple[str, ...]:
        """The columns of one text that must be there."""
        return (*self.fields.values(), *([] if self.label is None else [self.label]))

    @property
    def reads(self) -> Wanted:
        """All that is read of a record."""
        own = self.options
        return Wanted(
            texts=self.wanted,
            options=own.column if own else None,
            places_in=own.places_in if own else None,
            answers=tuple(self.answers),
            explode=tuple(self.explode),
            join_spans=self.join_spans,
        )


def missing_column(where: str, column: str, present: Iterable[str]) -> Exception:
    """The error for a column that is not there, naming those that are."""
    names = list(present)
    listed = ", ".join(repr(name) for name in names)
    return bad_data(where, f"no column {column!r}; there are {listed}{did_you_mean(column, names)}")


def label_of(row: Row, layout: Layout) -> str:
    """The row's label as ``labels`` spell it."""
    assert layout.label is not None
    label = row.values[layout.label]
    return layout.same_labels.get(label, label)


def labelled(rows: Iterable[Row], layout: Layout) -> list[Row]:
    """``rows`` without those to skip. Raises UserError at the first label that is not allowed."""
    known, skipped = frozenset(layout.labels), frozenset(layout.skip_labels)
    kept = []
    for row in rows:
        if layout.answers and not row.answers:
            if not layout.skip_unanswered:
                raise bad_data(row.where, f"no answer in {', '.join(layout.answers)}")
            continue
        if layout.label is None:
            kept.append(row)
            continue
        label = label_of(row, layout)
        if label in known:
            kept.append(row)
        elif label not in skipped:
            raise _bad_label(row, label, layout)
    return kept


def to_examples(rows: Iterable[Row], layout: Layout) -> list[Example]:
    """Rows that `labelled` let through, as examples. Raises UserError at the first blank text."""
    return [_example(row, layout) for row in rows]


def _example(row: Row, layout: Layout) -> Example:
    fields = _fields(row, layout)
    label = 0 if layout.label is None else list(layout.labels).index(label_of(row, layout))
    if layout.options is None:
        return Example(fields, label, row.where, answers=row.answers)
    if layout.answers:
        golds = _golds(row)
        label = golds[0]
    else:
        golds = ()
        if label >= len(row.options):
            raise bad_data(row.where, f"the label is option {label}, of {len(row.options)}")
    return Example(fields, label, row.where, _options(row, fields, layout.options), golds)


def _fields(row: Row, layout: Layout) -> dict[str, str]:
    fields = {name: row.values[column] for name, column in layout.fields.items()}
    for name, text in fields.items():
        if not text.strip():
            raise bad_data(row.where, f"the text in column {layout.fields[name]!r} is blank")
    for name, known in layout.values.items():
        if fields[name] not in known:
            allowed = ", ".join(repr(value) for value in known)
            column = layout.fields[name]
            given = f"column {column!r} holds {fields[name]!r}"
            raise bad_data(row.where, f"{given}; allowed: {allowed}")
        fields[name] = known[fields[name]]
    for name, parts in layout.replace.items():
        for old, new in parts.items():
            fields[name] = fields[name].replace(old, new)
    for name, other in layout.spans.items():
        fields[name] = _as_it_stands(fields[name], fields[other])
    return fields


def _as_it_stands(span: str, text: str) -> str:
    """``span`` as ``text`` has it: of either case in front, without a period at the end.

    As SuperGLUE's wsc.fixed does it; a span that is not there even so stays as it is.
    """
    bare = span.rstrip(".").replace("\n", " ")
    forms = (span, bare, bare[:1].swapcase() + bare[1:])
    return next((form for form in forms if form in text), span)


def _options(row: Row, fields: Mapping[str, str], own: RowOptions) -> tuple[str, ...]:
    if own.into is None or own.blank is None:
        return row.options
    text = fields[own.into]
    if own.blank not in text:
        raise bad_data(row.where, f"the field {own.into!r} has no {own.blank!r} to put options in")
    return tuple(text.replace(own.blank, option) for option in row.options)


def _golds(row: Row) -> tuple[int, ...]:
    """The options among the answers; the alphabetically first answer, which is trained on, first.

    Answers are in alphabetical order in the hub's data, and the first is trained on (MeZO).
    """
    golds = [row.options.index(a) for a in sorted(set(row.answers)) if a in row.options]
    if not golds:
        answers = ", ".join(repr(answer) for answer in row.answers)
        raise bad_data(row.where, f"none of the answers {answers} is among the options")
    return tuple(golds)


def _bad_label(row: Row, label: str, layout: Layout) -> Exception:
    allowed = ", ".join(repr(name) for name in layout.labels)
    kind = "unknown" if label.strip() else "blank"
    return bad_data(
        row.where, f"{kind} label {label!r} in column {layout.label!r}; allowed: {allowed}"
    )
