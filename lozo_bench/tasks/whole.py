"""All rows of a data set, as full fine-tuning is reported."""

from __future__ import annotations

from typing import Any

from lozo_bench.errors import UserError, bad_value
from lozo_bench.tasks.base import Splits
from lozo_bench.tasks.full import INSTEAD, check_places, read_both
from lozo_bench.tasks.hub import Hub
from lozo_bench.tasks.rows import Layout, to_examples
from lozo_bench.tasks.sampling import check_seed, subsample


class Whole:
    """A task in HeteroLoRA's protocol: trained on all train rows, reported on all test rows.

    There the reported number is the best one on the rows it is reported on (GLUE's validation
    split): dev is test. With ``held_out``, so many train rows, drawn under ``seed``, choose
    instead and are not trained on. The rows come from ``data_dir`` if it is given, else from
    ``hub``. Source: spec heterolora section 3.
    """

    def __init__(
        self,
        *,
        data_dir: str | None,
        hub: dict[str, Any] | None,
        files: dict[str, str],
        fields: dict[str, str],
        label: str,
        labels: list[str],
        held_out: int = 0,
        seed: int = 0,
        columns: list[str] | None = None,
        skip_labels: list[str] | None = None,
    ) -> None:
        """Check the arguments without touching the disk.

        Raises UserError with keys relative to ``task.source``.
        """
        if held_out < 0:
            raise bad_value("held_out", held_out, "a whole number >= 0")
        check_seed(seed)
        check_places(data_dir, files, hub)
        self.data_dir, self.files, self.held_out, self.seed = data_dir, files, held_out, seed
        self.layout = Layout(fields, label, labels, columns, skip_labels=tuple(skip_labels or ()))
        self.hub = None if hub is None else Hub.from_config(hub, list(fields))

    def splits(self) -> Splits:
        """Read and check every row. Raises UserError naming file and line."""
        full = read_both(self.data_dir, "task.data_dir", self.files, self.layout, self.hub, INSTEAD)
        train, test = (to_examples(rows, full.layout) for rows in (full.train, full.test))
        if not self.held_out:
            return Splits(train, list(test), test)
        if self.held_out >= len(train):
            raise UserError(
                f"task.source.held_out: given {self.held_out}; {full.where} has {len(train)} train "
                "rows and none would be left to train on; lower it"
            )
        kept, dev = subsample(train, len(train) - self.held_out, self.held_out, self.seed)
        return Splits(kept, dev, test)
