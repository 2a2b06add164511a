"""The error for a label that a task does not have, with the setting that maps it to one it has."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lozo_bench.errors import UserError, bad_data

_SHOWN = 5
# What can stand as a key on Hydra's command line, where keys cannot be quoted, and stay the same.
_BARE = re.compile(r"[A-Za-z_][\w-]*|0|[1-9]\d*|(?:0|[1-9]\d*)\.(?:0|\d*[1-9])")
_NOT_BARE = {"true", "false", "null", "nan", "inf"}


def unknown_label(rows: Sequence[tuple[str, str]], column: str, labels: Sequence[str]) -> UserError:
    """Return the error for rows whose label is not one of ``labels``. It names the first row.

    Args:
        rows: The place of each row and its label.
        column: The column of the label.
        labels: The labels of the task.
    """
    where, label = rows[0]
    allowed = ", ".join(repr(name) for name in labels)
    if not label.strip():
        return bad_data(where, f"blank label {label!r} in column {column!r}; allowed: {allowed}")
    unknown = list(dict.fromkeys(other for _, other in rows if other.strip()))[:_SHOWN]
    return bad_data(
        where,
        f"unknown label {label!r} in column {column!r}; allowed: {allowed}; what to do: if it is "
        f"another spelling of one of them, say so: {_same_labels(unknown, labels)}",
    )


def _same_labels(unknown: Sequence[str], labels: Sequence[str]) -> str:
    """Return how to set ``same_labels``: on the command line if possible, else in a YAML file."""
    meant = {label: _meant(label, labels) or "LABEL" for label in unknown}
    if all(_BARE.fullmatch(label) and label.lower() not in _NOT_BARE for label in meant):
        pairs = ",".join(f'{label}:"{name}"' for label, name in meant.items())
        return f"'++task.source.same_labels={{{pairs}}}'"
    pairs = ", ".join(f"{label!r}: {name!r}" for label, name in meant.items())
    return f"same_labels: {{{pairs}}} below source in the task's YAML file"


def _meant(label: str, labels: Sequence[str]) -> str | None:
    """Return the label of the same number, or of the same letters in another case."""
    number = _number(label)
    for name in labels:
        same_number = number is not None and _number(name) == number
        if same_number or name.strip().lower() == label.strip().lower():
            return name
    return None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
