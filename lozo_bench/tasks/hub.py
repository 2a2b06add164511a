"""Reading a data set on the Hugging Face hub into the same rows as from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lozo_bench import hub
from lozo_bench.errors import UserError, bad_value, did_you_mean
from lozo_bench.tasks.layout import Layout, Wanted
from lozo_bench.tasks.records import rows_of
from lozo_bench.tasks.rows import Row, missing_column

UNLABELLED = "-"

# The keys of ``task.source.hub`` by the type of their value.
REQUIRED_TEXTS = ("path", "train", "test")
OPTIONAL_TEXTS = ("label", "name", "revision", "options")
MAPPINGS = ("fields", "labels")
LISTS = ("answers",)
# The node itself: everything in it is text.
HubNode = dict[str, str | list[str] | dict[str, str] | None]


@dataclass(frozen=True, slots=True)
class Hub:
    """A data set on the hub: its path, its splits and its columns.

    Attributes:
        path: The name of the data set on the hub, or a local folder.
        train: The name of the train split.
        test: The name of the test split.
        fields: The hub's column for each text field, as in `Layout`.
        label: The hub's column of the label, as in `Layout`.
        options: The hub's column of the row's own options, which are texts.
        answers: The hub's columns of the answers, as in `Layout`.
        name: The name of a configuration of the data set, for example ``sst2`` of GLUE.
        revision: A branch, tag or commit of the data set.
        labels: The task's label for each label of the hub. A label of the hub is its name if the
            hub has names for labels, otherwise its value as text. Labels that are not in the
            mapping stay unchanged. The hub's -1, which marks a missing label, becomes ``-``.
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
        """Make a `Hub` from the config node ``task.source.hub``.

        Args:
            node: The config node.
            names: The names of the task's fields, in order.
            needed: Those of the keys ``label``, ``options`` and ``answers`` that the task has.

        Raises:
            UserError: A value is not allowed; its key is relative to ``task.source``.
        """
        keys = (*REQUIRED_TEXTS, *OPTIONAL_TEXTS, *MAPPINGS, *LISTS)
        for key in node:
            if key not in keys:
                raise bad_value("hub", key, f"the keys {', '.join(keys)}{did_you_mean(key, keys)}")
        for key in (*REQUIRED_TEXTS, *OPTIONAL_TEXTS):
            value = node.get(key)
            if not isinstance(value, str) and (value is not None or key in REQUIRED_TEXTS):
                raise bad_value(f"hub.{key}", value, "a text")
        for key in LISTS:
            value = node.get(key, [])
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise bad_value(f"hub.{key}", value, "a list of columns")
        for key in ("label", "options", "answers"):
            if bool(node.get(key)) != (key in needed):
                allowed = (
                    f"a column, because task.source.{key} is given"
                    if key in needed
                    else f"null, because task.source.{key} is not given"
                )
                raise bad_value(f"hub.{key}", node.get(key), allowed)
        for key in MAPPINGS:
            value = node.get(key, {})
            if not isinstance(value, Mapping):
                raise bad_value(f"hub.{key}", value, "a mapping with 'name: text' pairs")
        if list(node.get("fields", {})) != list(names):
            allowed = f"a column for each of {', '.join(names)}, in this order"
            raise bad_value("hub.fields", dict(node.get("fields", {})), allowed)
        return cls(**node)

    def layout(self, task: Layout) -> Layout:
        """Return the layout of the task with the hub's column names."""
        options = task.options and replace(task.options, column=self.options or "", places_in=None)
        return replace(
            task,
            fields=self.fields,
            label=self.label,
            options=options,
            answers=tuple(self.answers),
            columns=None,
            ragged=False,
            explode=(),
        )

    def read(self, split: str, alternative: str) -> list[Row]:
        """Read the needed columns of every row of a split, in the hub's order.

        Rows are numbered from 0 in error messages.

        Args:
            split: The name of the split.
            alternative: What the user can do if the hub cannot be read, for the error message.

        Raises:
            UserError: The hub cannot be reached or does not give the data set to this machine, or
                it has no such data set, configuration, split or column.
        """
        data = self._load(split, alternative)
        where = f"hub:{self.path}{f'/{self.name}' if self.name else ''}/{split}"
        texts = (*self.fields.values(), *([] if self.label is None else [self.label]))
        wanted = Wanted(texts, self.options, answers=tuple(self.answers))
        named = [*texts, *([] if self.options is None else [self.options]), *self.answers]
        top_level = list(dict.fromkeys(column.split(".")[0] for column in named))
        for column in top_level:
            if column not in data.column_names:
                raise missing_column(where, column, data.column_names)
        names = getattr(data.features.get(self.label), "names", None)
        columns = data.select_columns(top_level).to_dict()
        rows: list[Row] = []
        for number, values in enumerate(zip(*(columns[name] for name in top_level), strict=True)):
            record = dict(zip(top_level, values, strict=True))
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

    def _load(self, split: str, alternative: str) -> Any:
        # Imported here because the import takes a second and most runs read files.
        from datasets.load import load_dataset

        try:
            self._check_access()
            data = load_dataset(self.path, self.name, split=split, revision=self.revision)
        except Exception as error:  # the type depends on the HTTP library of the client
            raise self._unreadable(error, split, alternative) from error
        self._check_revision(data, alternative)
        return data

    def _check_access(self) -> None:
        if Path(self.path).is_dir() or hub.is_offline():
            return
        from huggingface_hub.errors import RemoteEntryNotFoundError

        with suppress(RemoteEntryNotFoundError):  # a data set needs no card
            hub.ask_once(self.path, "dataset", "README.md", self.revision)

    def _check_revision(self, data: Any, alternative: str) -> None:
        """Refuse another revision than the wanted one.

        Without the hub, datasets takes the revision that was read last, whichever is asked for. The
        folder of the rows is named by their commit.
        """
        if self.revision is None or Path(self.path).is_dir() or not data.cache_files:
            return
        commit = hub.cached_commit(self.path, "dataset", self.revision)
        if commit is None and not hub.is_offline():
            return
        folders = {part for file in data.cache_files for part in Path(file["filename"]).parts}
        if commit not in folders:
            missing = hub.not_cached(self.path, "dataset", f" at revision {self.revision!r}")
            raise UserError(f"task.source.hub: {missing}; or {alternative}")

    def _unreadable(self, error: Exception, split: str, alternative: str) -> UserError:
        local = Path(self.path).is_dir()
        problem = None if local else hub.problem(error, self.path, "dataset")
        if problem is None and not local and hub.is_offline() and _is_absent(error):
            other = f" ({error})" if "find cache" in str(error) else ""
            problem = hub.not_cached(self.path, "dataset", other)
        if problem is None:
            place = "" if local else " from the Hugging Face hub or its cache"
            reason = hub.without_token(f"{type(error).__name__}: {error}")
            problem = f"{self.path!r}, split {split!r}, cannot be read{place} ({reason})"
        return UserError(f"task.source.hub: {problem}; or {alternative}")


def _is_absent(error: Exception) -> bool:
    """Return whether datasets says that the data set, or its configuration, is not in its cache."""
    return isinstance(error, ConnectionError | FileNotFoundError) or "find cache" in str(error)
