"""LM-BFF's few-shot splits, read from its folders or drawn from the full data."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from lozo_bench.errors import UserError, bad_data, bad_value, counted, raise_all
from lozo_bench.tasks.base import Splits
from lozo_bench.tasks.files import find_file, read_rows
from lozo_bench.tasks.full_data import FullData, read_full_data
from lozo_bench.tasks.hub import Hub, HubNode
from lozo_bench.tasks.layout import Layout
from lozo_bench.tasks.rows import label_of, labelled, to_examples
from lozo_bench.tasks.sampling import bad_seed, cut_test, k_shot

log = logging.getLogger(__name__)

ALTERNATIVE = (
    "use task.data_dir=DIR (a ready k-shot folder) or task.source.full_dir=DIR (full data)"
)


class KShot:
    """A task in LM-BFF's protocol: ``k`` train and dev rows per label, at most 1,000 test rows.

    The rows come from the first of these sources that is given: ``data_dir``, ``full_dir``,
    ``hub``. The split is drawn with ``k`` and ``seed`` from the last two. It equals the published
    split, row for row, if the full data has LM-BFF's rows in LM-BFF's order. CoLA is the exception:
    two rows of LM-BFF's own test set stand in one line, of which its code reads the first sentence
    only, and a draw keeps both.

    Args:
        data_dir: A k-shot folder of LM-BFF, whose rows are used unchanged. A folder named K-SEED
            is refused if its K is not ``k``.
        full_dir: A folder with the full data.
        hub: The full data on the Hugging Face hub, see `Hub`.
        k: The number of train rows, and also of dev rows, per label.
        seed: Seed of the draw.
        files: The names of the ``train``, ``dev`` and ``test`` files in ``data_dir``, without
            extension.
        full_files: The names of the ``train`` and ``test`` files in ``full_dir``, without
            extension.
        fields, label, labels, columns, ragged, skip_labels, same_labels: See `Layout`.
        draw_note: How a drawn split differs from LM-BFF's; it is logged when a split is drawn.
        allow_short: Allow a label to have fewer than ``2 * k`` rows, as LM-BFF does (TREC with
            k = 512).
    """

    def __init__(
        self,
        *,
        data_dir: str | None,
        full_dir: str | None,
        hub: HubNode | None,
        k: int,
        seed: int,
        files: dict[str, str],
        full_files: dict[str, str],
        fields: dict[str, str],
        label: str,
        labels: list[str],
        columns: list[str] | None = None,
        ragged: bool = False,
        skip_labels: list[str] | None = None,
        same_labels: dict[str, str] | None = None,
        draw_note: str | None = None,
        allow_short: bool = False,
    ) -> None:
        """Check the arguments without reading any file.

        Raises:
            UserError: An argument is not allowed; its key is relative to ``task.source``.
        """
        raise_all(_bad_values(data_dir, full_dir, hub, k, seed, files, full_files))
        self.data_dir, self.full_dir, self.k, self.seed = data_dir, full_dir, k, seed
        self.files, self.full_files, self.allow_short = files, full_files, allow_short
        self.draw_note = draw_note
        skip = tuple(skip_labels or ())
        same = same_labels or {}
        self.layout = Layout(
            fields, label, labels, columns, ragged, skip, same_labels=same, as_published=True
        )
        self.hub = None if hub is None else Hub.from_config(hub, list(fields))

    def splits(self) -> Splits:
        """Read and check every row, and draw the sets unless they are read from ``data_dir``.

        Raises:
            UserError: A row is malformed; the message names file and line.
        """
        if self.data_dir is not None:
            return self._read_split(self.data_dir)
        return self._draw(
            read_full_data(
                self.full_dir,
                "task.source.full_dir",
                self.full_files,
                self.layout,
                self.hub,
                ALTERNATIVE,
            )
        )

    def _read_split(self, folder: str) -> Splits:
        self._warn_of_another_seed(folder)
        found = {s: find_file(folder, [f], "task.data_dir") for s, f in self.files.items()}
        rows = {s: labelled(read_rows(path, self.layout), self.layout) for s, path in found.items()}
        for split, path in found.items():
            if not rows[split]:
                raise bad_data(
                    str(path), f"no row has one of the labels {', '.join(self.layout.labels)}"
                )
        train, dev, test = (to_examples(rows[s], self.layout) for s in ("train", "dev", "test"))
        return Splits(train, dev, test)

    def _warn_of_another_seed(self, folder: str) -> None:
        if (named := _named(folder)) and named[1] != self.seed:
            log.warning(
                "%s: this is the split of seed %d, but the run has seed %d; with "
                "'task.data_dir=DIR/${task.source.k}-${seed.value}' each seed has its own split",
                folder,
                named[1],
                self.seed,
            )

    def _draw(self, full: FullData) -> Splits:
        if self.draw_note:
            log.warning("%s: %s", full.where, self.draw_note)
        layout = full.layout
        labels = [label_of(row, layout) for row in full.train]
        counts = Counter(labels)
        for label in layout.labels:
            short = counts[label] < 2 * self.k
            if not counts[label] or (short and not self.allow_short):
                raise UserError(
                    f"task.source.k: given {self.k}; label {label!r} has "
                    f"{counted(counts[label], 'row')} in {full.where}, but "
                    f"{2 * self.k} are needed for train and dev together; lower it"
                )
        chosen, dev = k_shot(full.train, labels, self.k, self.seed)
        return Splits(
            to_examples(chosen, layout),
            to_examples(dev, layout),
            to_examples(cut_test(full.test), layout),
        )


def _named(folder: str | None) -> tuple[int, int] | None:
    """Return K and SEED of a folder that is named K-SEED, as LM-BFF's are."""
    name = re.fullmatch(r"(\d+)-(\d+)", Path(folder).resolve().name) if folder else None
    return None if name is None else (int(name[1]), int(name[2]))


def _bad_values(
    data_dir: str | None,
    full_dir: str | None,
    hub: object,
    k: int,
    seed: int,
    files: Mapping[str, str],
    full_files: Mapping[str, str],
) -> Iterator[UserError]:
    if k < 1:
        yield bad_value("k", k, "a whole number >= 1")
    elif (named := _named(data_dir)) and named[0] != k:
        allowed = f"{named[0]}, because task.data_dir={data_dir} has {named[0]} rows per label"
        yield bad_value("k", k, allowed)
    yield from bad_seed(seed)
    if set(files) != {"train", "dev", "test"}:
        yield bad_value("files", files, "a file name without extension for train, dev and test")
    if set(full_files) != {"train", "test"}:
        yield bad_value("full_files", full_files, "a file name for train and test")
    if data_dir is not None and full_dir is not None:
        yield bad_value("full_dir", full_dir, "null, because task.data_dir already names the rows")
    if data_dir is None and full_dir is None and hub is None:
        yield bad_value("hub", hub, f"a data set on the hub; or {ALTERNATIVE}")
