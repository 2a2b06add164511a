"""MeZO's protocol for causal models: a random subset of the full data, from files or the hub."""

from __future__ import annotations

from typing import Any

from lozo_bench.errors import UserError, bad_value
from lozo_bench.tasks.base import Splits
from lozo_bench.tasks.files import read_full
from lozo_bench.tasks.hub import Hub
from lozo_bench.tasks.rows import Layout, labelled, to_examples
from lozo_bench.tasks.sampling import LARGEST_SEED, shuffled, subsample

INSTEAD = "use task.data_dir=DIR (a folder with the full data)"


class Subsample:
    """A task in MeZO's protocol: 1,000 train, 500 dev and 1,000 test rows of the full data.

    Train and dev are drawn from the full train rows, test from the full dev rows, each in the
    order of the permutation under ``seed`` (published runs: 0). The rows come from ``data_dir`` if
    it is given, else from ``hub``. ``files`` names the two files without their extension. Where
    there are fewer train rows than asked for, dev stays whole, as in the published runs.
    """

    def __init__(
        self,
        *,
        data_dir: str | None,
        hub: dict[str, Any] | None,
        fields: dict[str, str],
        label: str,
        labels: list[str],
        files: dict[str, str],
        num_train: int = 1000,
        num_dev: int = 500,
        num_test: int = 1000,
        seed: int = 0,
        columns: list[str] | None = None,
        skip_labels: list[str] | None = None,
    ) -> None:
        """Check the arguments without touching the disk.

        Raises UserError with keys relative to ``task.source``.
        """
        sizes = {"num_train": num_train, "num_dev": num_dev, "num_test": num_test}
        for key, size in sizes.items():
            if size < 1:
                raise bad_value(key, size, "a whole number >= 1")
        if not 0 <= seed <= LARGEST_SEED:
            raise bad_value("seed", seed, f"a whole number from 0 to {LARGEST_SEED}")
        if set(files) != {"train", "test"}:
            raise bad_value("files", files, "a file name without extension for train and test")
        if data_dir is None and hub is None:
            raise bad_value("hub", hub, f"a data set on the hub; or {INSTEAD}")
        self.data_dir, self.files, self.seed = data_dir, files, seed
        self.num_train, self.num_dev, self.num_test = num_train, num_dev, num_test
        self.layout = Layout(fields, label, labels, columns, skip_labels=tuple(skip_labels or ()))
        self.hub = None if hub is None else Hub.from_config(hub, list(fields))

    def splits(self) -> Splits:
        """Read, check and draw. Raises UserError naming file and line."""
        if self.data_dir is not None:
            layout, where = self.layout, self.data_dir
            train, test = (
                read_full(self.data_dir, self.files[split], "task.data_dir", layout)
                for split in ("train", "test")
            )
        else:
            assert self.hub is not None
            layout, where = self.hub.layout(self.layout), f"hub:{self.hub.path}"
            train = self.hub.read(self.hub.train, INSTEAD)
            test = self.hub.read(self.hub.test, INSTEAD)
        full = labelled(train, layout)
        chosen, dev = subsample(full, self.num_train, self.num_dev, self.seed)
        if not chosen:
            raise UserError(
                f"task.source.num_dev: given {self.num_dev}; {where} has {len(full)} train rows "
                "and none would be left to train on; lower it"
            )
        tested = shuffled(labelled(test, layout), self.seed)[: self.num_test]
        return Splits(*(to_examples(rows, layout) for rows in (chosen, dev, tested)))
