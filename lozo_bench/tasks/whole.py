"""All rows of a data set, as in full fine-tuning."""

from __future__ import annotations

from lozo_bench.errors import UserError, bad_value, counted
from lozo_bench.tasks.base import Splits
from lozo_bench.tasks.full_data import ALTERNATIVE, check_full_data, read_full_data
from lozo_bench.tasks.hub import Hub, HubNode
from lozo_bench.tasks.layout import Layout
from lozo_bench.tasks.rows import to_examples
from lozo_bench.tasks.sampling import check_seed, subsample


class Whole:
    """A task in HeteroLoRA's protocol: all train rows are trained on, all test rows are reported.

    HeteroLoRA reports the best epoch on GLUE's validation split, selected on the same split. The
    dev rows are therefore equal to the test rows. With ``held_out`` > 0, that many train rows are
    drawn as dev rows instead and are not trained on.

    Source: the released code of HeteroLoRA (``ModelCheckpoint monitor=val_acc_epoch``).

    Args:
        data_dir: A folder with the full data. If it is None, the rows come from ``hub``.
        hub: The data set on the Hugging Face hub, see `Hub`.
        files: The names of the ``train`` and ``test`` files without extension.
        fields, label, labels, columns, skip_labels, same_labels, values: See `Layout`.
        held_out: The number of train rows that become the dev rows. 0 selects on the test rows.
        seed: Seed of the draw of the held-out rows.
    """

    def __init__(
        self,
        *,
        data_dir: str | None,
        hub: HubNode | None,
        files: dict[str, str],
        fields: dict[str, str],
        label: str,
        labels: list[str],
        held_out: int = 0,
        seed: int = 0,
        columns: list[str] | None = None,
        skip_labels: list[str] | None = None,
        same_labels: dict[str, str] | None = None,
        values: dict[str, dict[str, str]] | None = None,
    ) -> None:
        """Check the arguments without reading any file.

        Raises:
            UserError: An argument is not allowed; its key is relative to ``task.source``.
        """
        if held_out < 0:
            raise bad_value("held_out", held_out, "a whole number >= 0")
        check_seed(seed)
        check_full_data(data_dir, files, hub)
        self.data_dir, self.files, self.held_out, self.seed = data_dir, files, held_out, seed
        skip, same = tuple(skip_labels or ()), same_labels or {}
        self.layout = Layout(
            fields, label, labels, columns, skip_labels=skip, same_labels=same, values=values or {}
        )
        self.hub = None if hub is None else Hub.from_config(hub, list(fields))

    def splits(self) -> Splits:
        """Read and check every row.

        Raises:
            UserError: A row is malformed; the message names file and line.
        """
        full = read_full_data(
            self.data_dir, "task.data_dir", self.files, self.layout, self.hub, ALTERNATIVE
        )
        train, test = (to_examples(rows, full.layout) for rows in (full.train, full.test))
        if not self.held_out:
            return Splits(train, list(test), test)
        if self.held_out >= len(train):
            raise UserError(
                f"task.source.held_out: given {self.held_out}; {full.where} has "
                f"{counted(len(train), 'train row')}, so no rows would be left to "
                "train on; lower it"
            )
        kept, dev = subsample(train, len(train) - self.held_out, self.held_out, self.seed)
        return Splits(kept, dev, test)
