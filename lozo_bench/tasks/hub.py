"""Reading a data set from the Hugging Face hub into the same rows as a file gives."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lozo_bench.errors import UserError, bad_data, bad_value, did_you_mean
from lozo_bench.tasks.rows import Layout, Row, missing_column

UNLABELLED = "-"
PROBE_SECONDS = 10

NEEDED_TEXTS = ("path", "train", "test", "label")
OTHER_TEXTS = ("name", "revision")
PAIRS = ("fields", "labels")


@dataclass(frozen=True, slots=True)
class Hub:
    """A data set on the hub: where it is, its split names, and its column names.

    ``fields`` and ``label`` name the hub's columns for the same fields and label as in files.
    ``labels`` translates the hub's labels (the name, where the hub knows names, else the value as
    text) into the task's; a label that is not in it stays as it is. The hub's mark for a missing
    label, -1, reads as ``-``.
    """

    path: str
    train: str
    test: str
    label: str
    fields: Mapping[str, str]
    name: str | None = None
    revision: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_config(cls, node: Mapping[str, Any], names: Sequence[str]) -> Hub:
        """Check a config node; ``names`` are the task's fields, in order.

        Raises UserError with keys relative to ``task.source``.
        """
        keys = (*NEEDED_TEXTS, *OTHER_TEXTS, *PAIRS)
        for key in node:
            if key not in keys:
                raise bad_value("hub", key, f"the keys {', '.join(keys)}{did_you_mean(key, keys)}")
        for key in (*NEEDED_TEXTS, *OTHER_TEXTS):
            value = node.get(key)
            if not isinstance(value, str) and (value is not None or key in NEEDED_TEXTS):
                raise bad_value(f"hub.{key}", value, "a text")
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
        return Layout(self.fields, self.label, task.labels, skip_labels=task.skip_labels)

    def read(self, split: str, instead: str) -> list[Row]:
        """The wanted columns of every row of ``split``, in the hub's order, counted from 0.

        ``instead`` says what to do without the hub. Raises UserError if the hub cannot be reached
        (within seconds; no retries), or has no such data set, split or column.
        """
        data = self._load(split, instead)
        where = f"hub:{self.path}{f'/{self.name}' if self.name else ''}/{split}"
        wanted = [*self.fields.values(), self.label]
        for column in wanted:
            if column not in data.column_names:
                raise missing_column(where, column, data.column_names)
        names = getattr(data.features[self.label], "names", None)
        columns = data.select_columns(wanted).to_dict()
        rows = []
        for number, (*texts, label) in enumerate(zip(*map(columns.get, wanted), strict=True)):
            if not all(isinstance(text, str) for text in texts):
                raise bad_data(f"{where}:{number}", f"a text is missing in {texts!r}")
            values = dict(zip(self.fields.values(), texts, strict=True))
            rows.append(Row(f"{where}:{number}", values | {self.label: self._label(label, names)}))
        return rows

    def _label(self, value: object, names: list[str] | None) -> str:
        if value is None or value == -1:
            return UNLABELLED
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
