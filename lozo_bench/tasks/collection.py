"""Tasks of a collection in the format of MetaICL and CrossFit: an input, an output, and options."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lozo_bench.errors import UserError, bad_data, bad_value, counted, raise_all
from lozo_bench.tasks.base import Example, Splits
from lozo_bench.tasks.files import read_rows
from lozo_bench.tasks.layout import Layout, RowOptions
from lozo_bench.tasks.rows import Row
from lozo_bench.tasks.sampling import bad_seed, cut_test, subsample

INPUT, OUTPUT, OPTIONS, TASK = "input", "output", "options", "task"
_WRITTEN = "what to do: task=metaicl_text, if the task's outputs are written and not chosen"


class Collection:
    r"""One task of a collection: a folder ``TASK`` with the files ``TASK_K_SEED_SPLIT.jsonl``.

    Each line is an object with ``task``, ``input``, ``output`` and ``options``. An example has the
    field ``input``. Its options are those of the row, after ``separator``, which is scored with
    them, as in MetaICL's code. Without options, the output is an answer that the model writes.

    A published train task has K = 16384 and no dev rows. The file of dev rows with K = 16 is drawn
    from the same train split, so it is never mixed with train rows of another K: dev rows are those
    of the same K and SEED, or ``held_out`` of the train rows.

    Source: utils/data.py, metaicl/data.py and preprocess/fewshot_gym_dataset.py of MetaICL.

    Args:
        data_dir: The folder of the task; None if its rows are made up.
        k: The K in the names of the files with train and dev rows.
        seed: The SEED in their names. It is also the seed of the draws below.
        test_k: The K in the name of the file with the test rows.
        test_seed: The SEED in its name; published runs always use 100.
        options: The column of the options; None if the model writes the output.
        same_options: Require that all rows have the same options: the classes of the task.
        separator: What stands between the input and an option.
        held_out: The number of train rows that become the dev rows. 0 reads the file of dev rows.
        num_train: Draw so many train rows, or all if there are fewer. None keeps all.
        num_test: Draw so many test rows, the same for every seed. None keeps all.
    """

    def __init__(
        self,
        *,
        data_dir: str | None,
        k: int,
        seed: int,
        test_k: int,
        test_seed: int = 100,
        options: str | None = OPTIONS,
        same_options: bool = False,
        separator: str = "\n",
        held_out: int = 0,
        num_train: int | None = None,
        num_test: int | None = None,
    ) -> None:
        """Check the arguments without reading any file.

        Raises:
            UserError: An argument is not allowed; its key is relative to ``task.source``.
        """
        raise_all(_bad_values(k, test_k, held_out, num_train, num_test, same_options, options))
        raise_all(bad_seed(seed))
        self.data_dir = data_dir
        self.k, self.seed, self.test_k, self.test_seed = k, seed, test_k, test_seed
        self.same_options, self.separator = same_options, separator
        self.held_out, self.num_train, self.num_test = held_out, num_train, num_test
        chosen = None if options is None else RowOptions(options)
        fields = {INPUT: INPUT, TASK: TASK}
        self.layout = Layout(fields, None, [], options=chosen, answers=(OUTPUT,))

    @property
    def folder(self) -> Path:
        """The folder of the task, whose name is the task's."""
        if self.data_dir is None:
            allowed = "the folder of a task in a collection, such as DIR/superglue-rte"
            raise bad_value("task.data_dir", None, allowed)
        return Path(self.data_dir).expanduser().resolve()

    def splits(self) -> Splits:
        """Read and check every row, and draw the sets.

        Raises:
            UserError: A file is missing, or a row is malformed; the message names file and line.
        """
        rows = self._read(self.k, self.seed, "train")
        dev = [] if self.held_out else self._read(self.k, self.seed, "dev")
        kept = len(rows) - self.held_out if self.num_train is None else self.num_train
        if self.held_out >= len(rows):
            raise UserError(
                f"task.source.held_out: given {self.held_out}; {self.folder} has "
                f"{counted(len(rows), 'train row')}, so no rows would be left to train on; lower it"
            )
        train = rows
        if kept + self.held_out < len(rows) or self.held_out:
            train, drawn = subsample(rows, kept, self.held_out, self.seed)
            dev = dev or drawn
        test = self._test_rows()
        classes = self._classes(rows)
        return Splits(
            train=list(self._examples(train, classes)),
            dev=list(self._examples(dev, classes)),
            test=list(self._examples(test, classes)),
        )

    def test(self) -> list[Example]:
        """Read the test rows, and no others.

        Raises:
            UserError: As for `splits`.
        """
        rows = self._test_rows()
        return list(self._examples(rows, self._classes(rows)))

    def _classes(self, rows: Sequence[Row]) -> tuple[str, ...] | None:
        return rows[0].options if self.same_options else None

    def _test_rows(self) -> list[Row]:
        rows = self._read(self.test_k, self.test_seed, "test")
        return rows if self.num_test is None else cut_test(rows, self.num_test)

    def _read(self, k: int, seed: int, split: str) -> list[Row]:
        folder = self.folder
        path = folder / f"{folder.name}_{k}_{seed}_{split}.jsonl"
        if not path.is_file():
            raise self._no_file(path, split)
        return read_rows(path, self.layout)

    def _no_file(self, path: Path, split: str) -> UserError:
        if not self.folder.is_dir():
            problem = "there is no such directory; task.data_dir must name the folder of a task"
            return bad_data(str(self.folder), problem)
        found = sorted(file.name for file in self.folder.glob(f"*_{split}.jsonl"))
        present = ", ".join(found) or f"no file of {split} rows"
        keys = {"test": "task.source.test_k and task.source.test_seed"}
        advice = f"choose {keys.get(split, 'task.source.k and task.source.seed')}"
        if split == "dev":
            advice += ", or draw N dev rows from the train rows: task.source.held_out=N"
        return bad_data(
            str(self.folder),
            f"there is no file {path.name}; the folder has {present}; what to do: {advice}",
        )

    def _examples(self, rows: Iterable[Row], classes: Sequence[str] | None) -> Iterator[Example]:
        for row in rows:
            self._check(row, classes)
            fields = {INPUT: row.values[INPUT]}
            if self.layout.options is None:
                yield Example(fields, 0, row.where, answers=row.answers)
                continue
            options = row.options if classes is None else tuple(classes)
            golds = tuple(n for n, option in enumerate(options) if option in row.answers)
            shown = tuple(self.separator + option for option in options)
            yield Example(fields, golds[0], row.where, shown, golds if len(golds) > 1 else ())

    def _check(self, row: Row, classes: Sequence[str] | None) -> None:
        """Refuse a row of another task, without an output, or whose output is not to be chosen."""
        if row.values[TASK] != self.folder.name:
            problem = f"the row is of task {row.values[TASK]!r}, in the folder of another task"
            raise bad_data(row.where, problem)
        if not row.answers:
            raise bad_data(row.where, f"there is no text in {OUTPUT!r}")
        if self.layout.options is None:
            return
        if len(row.options) < 2:
            problem = f"there is only one text in {OPTIONS!r}, so there is nothing to choose from"
            raise bad_data(row.where, f"{problem}; {_WRITTEN}")
        if not set(row.answers) & set(row.options):
            given = f"the output {row.answers[0]!r} is not one of the options"
            raise bad_data(row.where, f"{given} {', '.join(map(repr, row.options))}")
        if classes is not None and sorted(row.options) != sorted(classes):
            raise bad_data(
                row.where,
                f"the options are {', '.join(map(repr, row.options))}, and those of other rows "
                f"are {', '.join(map(repr, classes))}; what to do: "
                "task.source.same_options=false task.metric=accuracy",
            )


def _bad_values(
    k: int,
    test_k: int,
    held_out: int,
    num_train: int | None,
    num_test: int | None,
    same_options: bool,
    options: str | None,
) -> Iterator[UserError]:
    counts = {"k": k, "test_k": test_k, "num_train": num_train, "num_test": num_test}
    for key, count in counts.items():
        if count is not None and count < 1:
            yield bad_value(key, count, "a whole number >= 1")
    if held_out < 0:
        yield bad_value("held_out", held_out, "a whole number >= 0")
    if same_options and options is None:
        yield bad_value("same_options", True, "false, because the model writes the output")
