"""Reading a data set from the Hugging Face hub into the same rows as a file gives."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lozo_bench.errors import UserError, bad_value, did_you_mean
from lozo_bench.tasks.records import rows_of
from lozo_bench.tasks.rows import Layout, Row, Wanted, missing_column

UNLABELLED = "-"
PROBE_SECONDS = 10

NEEDED_TEXTS = ("path", "train", "test")
OTHER_TEXTS = ("label", "name", "revision", "options")
PAIRS = ("fields", "labels")
LISTS = ("answers",)


@dataclass(frozen=True, slots=True)
class Hub:
    """A data set on the hub: where it is, its split names, and its column names.

    ``fields``, ``label``, ``options`` and ``answers`` name the hub's columns for what `Layout` has
    in files; the hub has one row for each, and options as texts. ``labels`` translates the hub's
    labels (the name, where the hub knows names, else the value as text) into the task's; a label
    that is not in it stays as it is. The hub's mark for a missing label, -1, reads as ``-``.
    """

    path: str
    train: str
    test: str
    fields: Mapping[str, str]
    label: str | None = None
    options: str | None = None
    answers: Sequence[str] = ()
    name: str | None = None
    revision: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_config(
        cls, node: Mapping[str, Any], names: Sequence[str], needed: Sequence[str] = ("label",)
    ) -> Hub:
        """Check a config node; ``names`` are the task's fields, in order.

        ``needed`` are those of ``label``, ``options`` and ``answers`` that the task has.

        Raises UserError with keys relative to ``task.source``.
        """
        keys = (*NEEDED_TEXTS, *OTHER_TEXTS, *PAIRS, *LISTS)
        for key in node:
            if key not in keys:
                raise bad_value("hub", key, f"the keys {', '.join(keys)}{did_you_mean(key, keys)}")
        for key in (*NEEDED_TEXTS, *OTHER_TEXTS):
            value = node.get(key)
            if not isinstance(value, str) and (value is not None or key in NEEDED_TEXTS):
                raise bad_value(f"hub.{key}", value, "a text")
        for key in LISTS:
            value = node.get(key, [])
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise bad_value(f"hub.{key}", value, "a list of columns")
        for key in ("label", "options", "answers"):
            if bool(node.get(key)) != (key in needed):
                allowed = "as in task.source, which has " + ("it" if key in needed else "none")
                raise bad_value(f"hub.{key}", node.get(key), allowed)
        for key in PAIRS:
            value = node.get(key, {})
            if not isinstance(value, Mapping):
                raise bad_value(f"hub.{key}", value, "'name: text' pairs")
        if list(node.get("fields", {})) != list(names):
            allowed = f"a column for each of {', '.join(names)}, in this order"
            raise bad_value("hub.fields", dict(node.get("fields", {})), allowed)
        return cls(**node)

    def layout(self, task: Layout) -> Layout:
        """The ``task``'s layout, with the hub's column names."""
        own = task.options and replace(task.options, column=self.options or "", places_in=None)
        return replace(
            task,
            fields=self.fields,
            label=self.label,
            options=own,
            answers=tuple(self.answers),
            columns=None,
            ragged=False,
            explode=(),
        )

    def read(self, split: str, instead: str) -> list[Row]:
        """The wanted columns of every row of ``split``, in the hub's order, counted from 0.

        ``instead`` says what to do without the hub. Raises UserError if the hub cannot be reached
        (within seconds; no retries), or has no such data set, split or column.
        """
        data = self._load(split, instead)
        where = f"hub:{self.path}{f'/{self.name}' if self.name else ''}/{split}"
        texts = (*self.fields.values(), *([] if self.label is None else [self.label]))
        wanted = Wanted(texts, self.options, answers=tuple(self.answers))
        named = [*texts, *([] if self.options is None else [self.options]), *self.answers]
        outer = list(dict.fromkeys(column.split(".")[0] for column in named))
        for column in outer:
            if column not in data.column_names:
                raise missing_column(where, column, data.column_names)
        names = getattr(data.features.get(self.label), "names", None)
        columns = data.select_columns(outer).to_dict()
        rows: list[Row] = []
        for number, values in enumerate(zip(*(columns[name] for name in outer), strict=True)):
            record = dict(zip(outer, values, strict=True))
            if self.label is not None:
                record[self.label] = self._label(record[self.label], names)
            rows += rows_of(f"{where}:{number}", record, wanted)
        return rows

    def _label(self, value: object, names: list[str] | None) -> str:
        if value is None or value == -1:
            return UNLABELLED
        if isinstance(value, bool):
            label = "true" if value else "false"
        else:
            label = names[value] if names is not None and isinstance(value, int) else str(value)
        return self.labels.get(label, label)

    def _load(self, split: str, instead: str) -> Any:
        # Imported here because it takes a second, and most runs read files.
        from datasets.load import load_dataset

        try:
            self._probe()
            return load_dataset(self.path, self.name, split=split, revision=self.revision)
        except Exception as error:  # of whichever HTTP library the client is built on
            raise UserError(
                f"task.source.hub: {self.path!r}, split {split!r}, cannot be read from the Hugging "
                f"Face hub ({type(error).__name__}: {error}); {instead}, or set HF_HUB_OFFLINE=1 "
                "to use a copy downloaded earlier"
            ) from error

    def _probe(self) -> None:
        """Ask the hub once: `load_dataset` alone tries for 23 seconds before it gives up."""
        if Path(self.path).is_dir() or os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
            return
        from huggingface_hub import HfApi

        HfApi().dataset_info(self.path, revision=self.revision, timeout=PROBE_SECONDS)
