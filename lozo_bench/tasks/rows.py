"""Rows as they were read, the layout they must have, and how they become examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lozo_bench.errors import bad_data, bad_value, did_you_mean
from lozo_bench.tasks.base import Example

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Row:
    """One row: ``where`` it came from (``path:line``) and its ``values`` by column name."""

    where: str
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Layout:
    """Which columns of a data set hold what.

    ``fields`` names the column of each text field (a prompt knows fields, never columns) and
    ``label`` the column of the label, whose class id is its place in ``labels``. Rows with a label
    in ``skip_labels`` carry no gold label and are left out. A table without a header line has its
    ``columns`` named here. In a ``ragged`` table the number of columns before the last one varies
    (SNLI, by annotators), and the last name of the header is the last value of the row.

    Raises UserError, with keys relative to ``task.source``.
    """

    fields: Mapping[str, str]
    label: str
    labels: Sequence[str]
    columns: Sequence[str] | None = None
    ragged: bool = False
    skip_labels: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        if not self.fields:
            raise bad_value("fields", dict(self.fields), "at least one 'field: column' pair")
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise bad_value("labels", list(self.labels), "two or more different labels")
        if self.columns is not None and not set(self.wanted) <= set(self.columns):
            raise bad_value("columns", list(self.columns), f"a list with {', '.join(self.wanted)}")

    @property
    def wanted(self) -> tuple[str, ...]:
        """The columns that must be there."""
        return (*self.fields.values(), self.label)


def missing_column(where: str, column: str, present: Iterable[str]) -> Exception:
    """The error for a column that is not there, naming those that are."""
    names = list(present)
    listed = ", ".join(repr(name) for name in names)
    return bad_data(where, f"no column {column!r}; there are {listed}{did_you_mean(column, names)}")


def labelled(rows: Iterable[Row], layout: Layout) -> list[Row]:
    """``rows`` without those to skip. Raises UserError at the first label that is not allowed."""
    known, skipped = frozenset(layout.labels), frozenset(layout.skip_labels)
    kept = []
    for row in rows:
        label = row.values[layout.label]
        if label in known:
            kept.append(row)
        elif label not in skipped:
            raise _bad_label(row, label, layout)
    return kept


def to_examples(rows: Iterable[Row], layout: Layout) -> list[Example]:
    """Rows that `labelled` let through, as examples. Raises UserError at the first blank text."""
    ids = {label: index for index, label in enumerate(layout.labels)}
    examples = []
    for row in rows:
        texts = {field: row.values[column] for field, column in layout.fields.items()}
        for field, text in texts.items():
            if not text.strip():
                raise bad_data(row.where, f"the text in column {layout.fields[field]!r} is blank")
        examples.append(Example(texts, ids[row.values[layout.label]], row.where))
    return examples


def _bad_label(row: Row, label: str, layout: Layout) -> Exception:
    allowed = ", ".join(repr(name) for name in layout.labels)
    kind = "unknown" if label.strip() else "blank"
    return bad_data(
        row.where, f"{kind} label {label!r} in column {layout.label!r}; allowed: {allowed}"
    )
