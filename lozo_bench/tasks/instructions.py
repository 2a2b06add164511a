"""Instruction data: requests with an answer that is scored as text."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

from lozo_bench.errors import UserError, bad_value, counted, raise_all
from lozo_bench.tasks.base import Example, Splits
from lozo_bench.tasks.files import read_full
from lozo_bench.tasks.full_data import ALTERNATIVE
from lozo_bench.tasks.hub import Hub, HubNode
from lozo_bench.tasks.layout import Layout
from lozo_bench.tasks.rows import Row
from lozo_bench.tasks.sampling import bad_seed, subsample
from lozo_bench.tasks.template import Template

log = logging.getLogger(__name__)


class Instructions:
    """One set of instructions with answers, of which a share is held out to be tested on.

    The rows are drawn as ``train_test_split`` of the library datasets draws them, which HeteroLoRA
    uses for Alpaca with seed 42. Like it, dev rows are equal to the test rows, unless ``held_out``
    train rows are drawn as dev rows. A row without an answer is left out after the draw, as it has
    nothing to score.

    An example has the field ``request``: one of two texts with the row's fields, depending on
    whether the row has an input beside its instruction.

    Args:
        data_dir: A folder with the data. If it is None, the rows come from ``hub``.
        hub: The data set on the Hugging Face hub, see `Hub`; its split ``train`` is read.
        file: The name of the file without extension.
        fields: The columns of ``instruction`` and ``input``.
        answer: The column of the answer.
        with_input: The request of a row with an input.
        without_input: The request of a row without one.
        test_share: The share of the rows that is tested on.
        held_out: The number of train rows that become the dev rows. 0 selects on the test rows.
        seed: Seed of both draws.
    """

    def __init__(
        self,
        *,
        data_dir: str | None,
        hub: HubNode | None,
        file: str,
        fields: dict[str, str],
        answer: str,
        with_input: str,
        without_input: str,
        test_share: float = 0.1,
        held_out: int = 0,
        seed: int = 42,
    ) -> None:
        """Check the arguments without reading any file.

        Raises:
            UserError: An argument is not allowed; its key is relative to ``task.source``.
        """
        raise_all(bad_seed(seed))
        if set(fields) != {"instruction", "input"}:
            raise bad_value("fields", fields, "the columns of instruction and input")
        if not 0 < test_share < 1:
            raise bad_value("test_share", test_share, "a number between 0 and 1")
        if held_out < 0:
            raise bad_value("held_out", held_out, "a whole number >= 0")
        if data_dir is None and hub is None:
            raise bad_value("hub", hub, f"a data set on the hub; or {ALTERNATIVE}")
        self.data_dir, self.file, self.seed = data_dir, file, seed
        self.test_share, self.held_out = test_share, held_out
        self.layout = Layout(fields, None, [], answers=(answer,))
        self.hub = None if hub is None else Hub.from_config(hub, list(fields), ["answers"])
        self.with_input = Template(with_input, "with_input")
        self.without_input = Template(without_input, "without_input")

    def splits(self) -> Splits:
        """Read every row and draw the sets.

        Raises:
            UserError: A row is malformed, or too few rows are left to train on.
        """
        if self.data_dir is not None:
            layout = self.layout
            rows = read_full(self.data_dir, self.file, "task.data_dir", layout)
        else:
            assert self.hub is not None
            layout = self.hub.layout(self.layout)
            rows = self.hub.read(self.hub.train, ALTERNATIVE)
        kept, tested = self._drawn(rows)
        train, test = (self._examples(part, layout) for part in (kept, tested))
        if self.held_out >= len(train):
            raise UserError(
                f"task.source.held_out: given {self.held_out}; there are "
                f"{counted(len(train), 'train row')}, so no rows would be left to train on; "
                "lower it"
            )
        if not self.held_out:
            return Splits(train, list(test), test)
        train, dev = subsample(train, len(train) - self.held_out, self.held_out, self.seed)
        return Splits(train, dev, test)

    def _drawn(self, rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
        """Return the train rows and the test rows, in the order of the draw."""
        order = np.random.default_rng(self.seed).permutation(len(rows))
        tested = math.ceil(self.test_share * len(rows))
        return [rows[i] for i in order[tested:]], [rows[i] for i in order[:tested]]

    def _examples(self, rows: Sequence[Row], layout: Layout) -> list[Example]:
        answered = [row for row in rows if row.answers]
        if len(answered) < len(rows):
            none = counted(len(rows) - len(answered), "row")
            log.info("%s of %d left out: no answer", none, len(rows))
        return [
            Example({"request": self._request(row, layout)}, 0, row.where, answers=row.answers)
            for row in answered
        ]

    def _request(self, row: Row, layout: Layout) -> str:
        fields = {name: row.values[column] for name, column in layout.fields.items()}
        text = self.with_input if fields["input"].strip() else self.without_input
        return text.fill(fields, row.where)
