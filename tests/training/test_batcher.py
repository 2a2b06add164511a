"""Batches from row numbers."""

from __future__ import annotations

import torch

from lozo_bench.data.batch import BatchLayout
from lozo_bench.data.sets import Data
from lozo_bench.objectives.losses import OptionObjective
from lozo_bench.tasks.base import Encoded
from lozo_bench.training.batcher import Batcher

LAYOUT = BatchLayout(pad_id=0, label_ids=(0, 1))


def batcher():
    rows = [Encoded(rows=((1,) * n,), answer=((0,),), label=0) for n in (2, 9, 3, 8, 2)]
    cpu = torch.device("cpu")
    objective = OptionObjective(lambda batch: torch.zeros(batch.size, 2), LAYOUT, cpu)
    return Batcher(Data(rows, [], [], LAYOUT), objective, micro_batch_size=2)


def test_micro_batches_are_named_by_their_rows():
    """Equal names mean the same rows in the same order, of the same data."""
    one = batcher()
    keys = [part.key for part in one.batch([4, 3, 1, 0]).parts]
    assert len(set(keys)) == 2
    assert sorted(row for _, *rows in keys for row in rows) == [0, 1, 3, 4]
    assert [part.key for part in one.batch([4, 3, 1, 0]).parts] == keys
    assert [part.key for part in one.batch([0, 3, 1, 4]).parts] != keys
    assert set(keys).isdisjoint(part.key for part in batcher().batch([4, 3, 1, 0]).parts)
