"""C-LoRA's few-shot splits: k rows per label, drawn from the rows that are not too long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from functools import partial
from itertools import compress

from lozo_bench.errors import UserError, bad_value, counted
from lozo_bench.tasks.base import Example, Fits, Splits
from lozo_bench.tasks.full_data import ALTERNATIVE, check_full_data, read_full_data
from lozo_bench.tasks.hub import Hub, HubNode
from lozo_bench.tasks.layout import Layout
from lozo_bench.tasks.rows import to_examples
from lozo_bench.tasks.sampling import check_seed, shuffled


class FewShot:
    """A task in C-LoRA's protocol: ``k`` train and ``k`` dev rows per label, the whole test set.

    Rows that are longer than ``task.max_length`` are dropped from the train and the test rows
    before the draw; they are not cut. The split therefore depends on the tokenizer and the
    template, so `splits` returns a function that draws when both are known (`Splits.fitted`).

    Source: deepfwlora.py:697-734 of the C-LoRA release.

    Args:
        data_dir: A folder with the full data. If it is None, the rows come from ``hub``.
        hub: The data set on the Hugging Face hub, see `Hub`.
        k: The number of train rows, and also of dev rows, per label.
        seed: Seed of the draw.
        files: The names of the ``train`` and ``test`` files without extension.
        fields, label, labels, columns, skip_labels, same_labels: See `Layout`.
    """

    def __init__(
        self,
        *,
        data_dir: str | None,
        hub: HubNode | None,
        k: int,
        seed: int,
        files: dict[str, str],
        fields: dict[str, str],
        label: str,
        labels: list[str],
        columns: list[str] | None = None,
        skip_labels: list[str] | None = None,
        same_labels: dict[str, str] | None = None,
    ) -> None:
        """Check the arguments without reading any file.

        Raises:
            UserError: An argument is not allowed; its key is relative to ``task.source``.
        """
        if k < 1:
            raise bad_value("k", k, "a whole number >= 1")
        check_seed(seed)
        check_full_data(data_dir, files, hub)
        self.data_dir, self.files, self.k, self.seed = data_dir, files, k, seed
        skip, same = tuple(skip_labels or ()), same_labels or {}
        self.layout = Layout(fields, label, labels, columns, skip_labels=skip, same_labels=same)
        self.hub = None if hub is None else Hub.from_config(hub, list(fields))

    def splits(self) -> Splits:
        """Read and check every row, and return the function that draws the sets.

        Raises:
            UserError: A row is malformed; the message names file and line.
        """
        full = read_full_data(
            self.data_dir, "task.data_dir", self.files, self.layout, self.hub, ALTERNATIVE
        )
        train, test = (to_examples(rows, full.layout) for rows in (full.train, full.test))
        return Splits(fitted=partial(self._draw, train, test, full.where))

    def _draw(self, train: list[Example], test: list[Example], where: str, fits: Fits) -> Splits:
        kept = list(compress(train, fits(train)))
        counts = Counter(example.label for example in kept)
        for number, label in enumerate(self.layout.labels):
            if counts[number] < 2 * self.k:
                raise UserError(
                    f"task.source.k: given {self.k}; label {label!r} has "
                    f"{counted(counts[number], 'row')} in {where} that fit into "
                    f"task.max_length, but {2 * self.k} are needed for train and dev together; "
                    "lower it"
                )
        chosen, dev = draw_per_label([example.label for example in kept], self.k, self.seed)
        return Splits(
            [kept[i] for i in chosen], [kept[i] for i in dev], list(compress(test, fits(test)))
        )


def draw_per_label(labels: Sequence[Hashable], k: int, seed: int) -> tuple[list[int], list[int]]:
    """Return the indices of C-LoRA's train and dev rows.

    The rows are shuffled. The first ``k`` rows of each label are the train rows and the next ``k``
    are the dev rows. Both lists keep the order of the shuffle; they are not grouped by label.
    """
    train: list[int] = []
    dev: list[int] = []
    seen: Counter[Hashable] = Counter()
    for index in shuffled(range(len(labels)), seed):
        seen[labels[index]] += 1
        if seen[labels[index]] <= k:
            train.append(index)
        elif seen[labels[index]] <= 2 * k:
            dev.append(index)
    return train, dev
