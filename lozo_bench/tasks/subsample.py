"""MeZO's protocol for causal models: random subsets of the full data."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from lozo_bench.errors import UserError, bad_value, counted, did_you_mean, raise_all
from lozo_bench.tasks.base import Splits
from lozo_bench.tasks.full_data import ALTERNATIVE, FullData, check_full_data, read_full_data
from lozo_bench.tasks.hub import Hub, HubNode
from lozo_bench.tasks.layout import Layout, RowOptions
from lozo_bench.tasks.rows import to_examples
from lozo_bench.tasks.sampling import bad_seed, shuffled, subsample

OPTION_KEYS = ("column", "places_in", "into", "blank")


class Subsample:
    """A task in MeZO's protocol: 1,000 train, 500 dev and 1,000 test rows of the full data.

    Train and dev rows are drawn from the full train split, test rows from the full validation
    split, both in the order of numpy's permutation under ``seed`` (published runs: 0). If there are
    fewer train rows than ``num_train + num_dev``, the dev set keeps its size and the train set
    shrinks, as in the published runs. Demonstrations are drawn from all rows of the train split.

    Args:
        data_dir: A folder with the full data. If it is None, the rows come from ``hub``.
        hub: The data set on the Hugging Face hub, see `Hub`.
        fields: See `Layout`, which also explains all arguments that are not listed here.
        files: The names of the ``train`` and ``test`` files without extension.
        num_train: The number of train rows.
        num_dev: The number of dev rows, or several numbers by name. WSC has two, because the
            published 500 leave only 54 train rows.
        num_test: The number of test rows.
        split: Which of the names in ``num_dev`` to use.
        seed: Seed of the draw.
        options: See `RowOptions`.
        test_answers: The columns of the test rows' answers, if they differ from ``answers``.
    """

    def __init__(
        self,
        *,
        data_dir: str | None,
        hub: HubNode | None,
        fields: dict[str, str],
        files: dict[str, str],
        label: str | None = None,
        labels: list[str] | None = None,
        same_labels: dict[str, str] | None = None,
        skip_labels: list[str] | None = None,
        num_train: int = 1000,
        num_dev: int | dict[str, int] = 500,
        num_test: int = 1000,
        split: str | None = None,
        seed: int = 0,
        columns: list[str] | None = None,
        explode: list[str] | None = None,
        options: dict[str, str] | None = None,
        answers: list[str] | None = None,
        test_answers: list[str] | None = None,
        join_spans: bool = False,
        skip_unanswered: bool = False,
        values: dict[str, dict[str, str]] | None = None,
        replace: dict[str, dict[str, str]] | None = None,
        spans: dict[str, str] | None = None,
    ) -> None:
        """Check the arguments without reading any file.

        Raises:
            UserError: An argument is not allowed; its key is relative to ``task.source``.
        """
        dev = _dev_size(num_dev, split)
        sizes = {"num_train": num_train, "num_dev": dev, "num_test": num_test}
        small = [(key, size) for key, size in sizes.items() if size < 1]
        bad_sizes = [bad_value(key, size, "a whole number >= 1") for key, size in small]
        raise_all([*bad_sizes, *bad_seed(seed)])
        check_full_data(data_dir, files, hub)
        if data_dir is None and join_spans:
            allowed = (
                "false, because the rows on the hub do not say which spans form one answer; or "
                f"{ALTERNATIVE}"
            )
            raise bad_value("join_spans", join_spans, allowed)
        self.data_dir, self.files, self.seed = data_dir, files, seed
        self.num_train, self.num_dev, self.num_test = num_train, dev, num_test
        self.layout = Layout(
            fields,
            label,
            labels or [],
            columns,
            skip_labels=tuple(skip_labels or ()),
            same_labels=same_labels or {},
            explode=tuple(explode or ()),
            options=_row_options(options),
            answers=tuple(answers or ()),
            join_spans=join_spans,
            skip_unanswered=skip_unanswered,
            values=values or {},
            replace=replace or {},
            spans=spans or {},
        )
        self.test_answers = tuple(test_answers or answers or ())
        given = {"label": label, "options": options, "answers": answers}
        needed = [key for key, value in given.items() if value]
        self.hub = None if hub is None else Hub.from_config(hub, list(fields), needed)

    def splits(self) -> Splits:
        """Read and check every row, and draw the sets.

        Raises:
            UserError: A row is malformed; the message names file and line.
        """
        full = read_full_data(
            self.data_dir,
            "task.data_dir",
            self.files,
            self.layout,
            self.hub,
            ALTERNATIVE,
            test_layout=replace(self.layout, answers=self.test_answers),
        )
        return self._draw(full)

    def _draw(self, full: FullData) -> Splits:
        layout = full.layout
        chosen, dev = subsample(full.train, self.num_train, self.num_dev, self.seed)
        if not chosen:
            raise UserError(
                f"task.source.num_dev: given {self.num_dev}; {full.where} has "
                f"{counted(len(full.train), 'train row')}, so no rows would be left to "
                "train on; lower it"
            )
        test = shuffled(full.test, self.seed)[: self.num_test]
        return Splits(
            train=to_examples(chosen, layout),
            dev=to_examples(dev, layout),
            test=to_examples(test, layout),
            pool=partial(to_examples, full.train, layout),
        )


def _dev_size(num_dev: int | dict[str, int], split: str | None) -> int:
    if isinstance(num_dev, int):
        if split is not None:
            raise bad_value("split", split, "null, because num_dev is a single number")
        return num_dev
    if split not in num_dev:
        hint = did_you_mean(split or "", num_dev)
        raise bad_value("split", split, f"one of {', '.join(num_dev)}{hint}")
    return num_dev[split]


def _row_options(node: dict[str, str] | None) -> RowOptions | None:
    if node is None:
        return None
    for key in node:
        if key not in OPTION_KEYS:
            hint = did_you_mean(key, OPTION_KEYS)
            raise bad_value("options", key, f"the keys {', '.join(OPTION_KEYS)}{hint}")
    if "column" not in node or ("into" in node) != ("blank" in node):
        raise bad_value("options", node, "a column, and either both of into and blank or neither")
    return RowOptions(**node)
