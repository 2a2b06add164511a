"""C-LoRA's few-shot rule: rows too long for the model are left out, then so many of each label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from functools import partial
from itertools import compress
from typing import Any

from lozo_bench.errors import UserError, bad_value
from lozo_bench.tasks.base import Example, Fits, Splits
from lozo_bench.tasks.full import INSTEAD, check_places, read_both
from lozo_bench.tasks.hub import Hub
from lozo_bench.tasks.rows import Layout, to_examples
from lozo_bench.tasks.sampling import check_seed, shuffled


class FewShot:
    """A task in C-LoRA's protocol: ``k`` train and ``k`` dev rows per label, the whole test set.

    Rows that do not fit the model's row length are dropped, not cut, from train and test before
    the draw, so that the split depends on tokenizer and template: `splits` returns a draw that
    waits for both (see `Splits.fitted`). The rows come from ``data_dir`` if it is given, else from
    ``hub``. ``files`` names the two files without their extension; `Layout` and `Hub` tell the
    rest. Source: deepfwlora.py of the C-LoRA release, spec clora_flora_bbt section 4.2.
    """

    def __init__(
        self,
        *,
        data_dir: str | None,
        hub: dict[str, Any] | None,
        k: int,
        seed: int,
        files: dict[str, str],
        fields: dict[str, str],
        label: str,
        labels: list[str],
        columns: list[str] | None = None,
        skip_labels: list[str] | None = None,
    ) -> None:
        """Check the arguments without touching the disk.

        Raises UserError with keys relative to ``task.source``.
        """
        if k < 1:
            raise bad_value("k", k, "a whole number >= 1")
        check_seed(seed)
        check_places(data_dir, files, hub)
        self.data_dir, self.files, self.k, self.seed = data_dir, files, k, seed
        self.layout = Layout(fields, label, labels, columns, skip_labels=tuple(skip_labels or ()))
        self.hub = None if hub is None else Hub.from_config(hub, list(fields))

    def splits(self) -> Splits:
        """Read and check every row; the draw waits. Raises UserError naming file and line."""
        full = read_both(self.data_dir, "task.data_dir", self.files, self.layout, self.hub, INSTEAD)
        train, test = (to_examples(rows, full.layout) for rows in (full.train, full.test))
        return Splits(fitted=partial(self._draw, train, test, full.where))

    def _draw(self, train: list[Example], test: list[Example], where: str, fits: Fits) -> Splits:
        kept = list(compress(train, fits(train)))
        counts = Counter(example.label for example in kept)
        for number, label in enumerate(self.layout.labels):
            if counts[number] < 2 * self.k:
                raise UserError(
                    f"task.source.k: given {self.k}; label {label!r} has {counts[number]} rows in "
                    f"{where} that fit task.max_length, and {2 * self.k} are needed, for train and "
                    "dev; lower it"
                )
        chosen, dev = walk([example.label for example in kept], self.k, self.seed)
        return Splits(
            [kept[i] for i in chosen], [kept[i] for i in dev], list(compress(test, fits(test)))
        )


def walk(labels: Sequence[Hashable], k: int, seed: int) -> tuple[list[int], list[int]]:
    """C-LoRA's train and dev rows: along the shuffle, a label's first ``k`` and its next ``k``.

    Both lists are places in ``labels``, in the order of the shuffle; they are not grouped.
    """
    train: list[int] = []
    dev: list[int] = []
    met: Counter[Hashable] = Counter()
    for place in shuffled(range(len(labels)), seed):
        met[labels[place]] += 1
        if met[labels[place]] <= k:
            train.append(place)
        elif met[labels[place]] <= 2 * k:
            dev.append(place)
    return train, dev
