"""MeZO's protocol for causal models: a random subset of the full data, from files or the hub."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from lozo_bench.errors import UserError, bad_value, did_you_mean
from lozo_bench.tasks.base import Splits
from lozo_bench.tasks.full import INSTEAD, Full, check_places, read_both
from lozo_bench.tasks.hub import Hub
from lozo_bench.tasks.rows import Layout, RowOptions, to_examples
from lozo_bench.tasks.sampling import check_seed, shuffled, subsample

OPTION_KEYS = ("column", "places_in", "into", "blank")


class Subsample:
    """A task in MeZO's protocol: 1,000 train, 500 dev and 1,000 test rows of the full data.

    Train and dev are drawn from the full train rows, test from the full dev rows, each in the
    order of the permutation under ``seed`` (published runs: 0). The rows come from ``data_dir`` if
    it is given, else from ``hub``. ``files`` names the two files without their extension. Where
    there are fewer train rows than asked for, dev stays whole, as in the published runs; where that
    leaves too little, ``num_dev`` may be several numbers by name, of which ``split`` names one.

    What the columns hold is told by `Layout`, and by `RowOptions` for ``options``; ``test_answers``
    are the columns of the test rows' answers where they are others. Demonstrations may be any of
    the full train rows.
    """

    def __init__(
        self,
        *,
        data_dir: str | None,
        hub: dict[str, Any] | None,
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
        """Check the arguments without touching the disk.

        Raises UserError with keys relative to ``task.source``.
        """
        dev = _named(num_dev, split)
        for key, size in {"num_train": num_train, "num_dev": dev, "num_test": num_test}.items():
            if size < 1:
                raise bad_value(key, size, "a whole number >= 1")
        check_seed(seed)
        check_places(data_dir, files, hub)
        if data_dir is None and join_spans:
            allowed = (
                f"false, as the hub's rows do not say which spans are one answer; or {INSTEAD}"
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
        has = {"label": label, "options": options, "answers": answers}
        needed = [key for key, value in has.items() if value]
        self.hub = None if hub is None else Hub.from_config(hub, list(fields), needed)

    def splits(self) -> Splits:
        """Read, check and draw. Raises UserError naming file and line."""
        other = replace(self.layout, answers=self.test_answers)
        full = read_both(
            self.data_dir, "task.data_dir", self.files, self.layout, self.hub, INSTEAD, other
        )
        return self._drawn(full)

    def _drawn(self, full: Full) -> Splits:
        layout = full.layout
        chosen, dev = subsample(full.train, self.num_train, self.num_dev, self.seed)
        if not chosen:
            raise UserError(
                f"task.source.num_dev: given {self.num_dev}; {full.where} has {len(full.train)} "
                "train rows and none would be left to train on; lower it"
            )
        tested = shuffled(full.test, self.seed)[: self.num_test]
        return Splits(
            train=to_examples(chosen, layout),
            dev=to_examples(dev, layout),
            test=to_examples(tested, layout),
            pool=partial(to_examples, full.train, layout),
        )


def _named(num_dev: int | dict[str, int], split: str | None) -> int:
    if isinstance(num_dev, int):
        if split is not None:
            raise bad_value("split", split, "null, as num_dev is one number")
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
        raise bad_value("options", node, "a column; and both or none of into and blank")
    return RowOptions(**node)
