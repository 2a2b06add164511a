"""Which runs several processes can share."""

from __future__ import annotations

import re

import pytest

from lozo_bench.config.schema import Config, ParallelConfig, Split
from lozo_bench.errors import UserError
from lozo_bench.optimizers.base import Needs, Stream
from lozo_bench.training.rows import TrainingRows
from lozo_bench.training.shareable import require_shareable

GRADIENT = Needs(gradient=True, replayable=False)
BY_CANDIDATES = {"parallel": ParallelConfig(split=Split.candidates)}


def check(needs, processes, count=41, batch_size=4, **settings):
    rows = TrainingRows(count, batch_size, 0, needs)
    require_shareable(Config(batch_size=batch_size, **settings), needs, rows, processes)


@pytest.mark.parametrize(
    ("needs", "settings", "line"),
    [
        (Needs(), {"max_seconds": 9.0}, "max_seconds: 2 processes would not agree on the time"),
        (Needs(features=True), {}, "optimizer: one process solves for it; it was started as 2"),
        (GRADIENT, {"allocation": {"_target_": "A"}}, "allocation: with gradients it needs a sin"),
        (GRADIENT, BY_CANDIDATES, "parallel.split: given 'candidates'; allowed: batch"),
        (GRADIENT, {}, "batch_size: given 4, of which the last of 41 rows leaves a batch of 1; al"),
        (
            Needs(gradient=True, replayable=False, streams={"upper": Stream((0.0, 0.25))}),
            {"count": 20},
            "batch_size: given 4, of which the last of 5 rows of the stream 'upper' leaves a batch",
        ),
    ],
)
def test_what_two_processes_cannot_share_is_fine_for_one(needs, settings, line):
    with pytest.raises(UserError, match=f"^{re.escape(line)}"):
        check(needs, 2, **settings)
    check(needs, 1, **settings)


@pytest.mark.parametrize(
    ("needs", "settings"),
    [
        (Needs(directions="low_rank"), BY_CANDIDATES),
        (Needs(directions="low_rank"), {"allocation": {"_target_": "A"}}),
        (Needs(directions="low_rank"), {"batch_size": 1}),
        (GRADIENT, {"count": 42}),
    ],
)
def test_two_processes_share_losses_in_any_way_and_gradients_of_large_enough_batches(
    needs, settings
):
    check(needs, 2, **settings)
