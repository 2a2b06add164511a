"""Copies of a batch, and a batch on another device."""

from __future__ import annotations

import torch

from lozo_bench.data.batch import BatchLayout, ScoringOptions
from lozo_bench.data.collate import collate
from lozo_bench.tasks.base import Encoded

TWO_OPTIONS = Encoded(rows=((2, 7, 8), (2, 7, 9, 6)), answer=((2,), (2, 3)), label=1)
SHORT = Encoded(rows=((2, 8), (2, 9)), answer=((1,), (1,)), label=0)
SHARED = BatchLayout(pad_id=1)
ROW_BY_ROW = BatchLayout(pad_id=1, scoring=ScoringOptions(share_prompt=False))


def test_copies_follow_one_another_and_read_from_their_own_rows():
    batch = collate([TWO_OPTIONS, SHORT], SHARED)
    twice = batch.repeat(2)
    assert twice.input_ids.tolist() == batch.input_ids.tolist() * 2
    assert twice.read.tolist() == [[1, 2], [3, 3], [7, 8], [9, 9]]
    assert twice.labels.tolist() == [1, 0, 1, 0]
    assert twice.block.tolist() == batch.block.tolist() * 2
    assert twice.size == 4
    assert batch.repeat(1) is batch


def test_moving_a_batch_to_a_device_changes_nothing():
    batch = collate([TWO_OPTIONS], SHARED)
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.block, batch.block)
    assert moved.tokens == batch.tokens
