"""What the columns of a data set contain, and which of them are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lozo_bench.errors import UserError, bad_value, did_you_mean, raise_all


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
