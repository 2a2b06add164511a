"""Padding, positions that matter, and the order of batches."""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lozo_bench.batches import collate, in_order, shuffled
from lozo_bench.tasks.base import Encoded

TWO_OPTIONS = Encoded(rows=((2, 7, 8), (2, 7, 9, 9)), answer=((2,), (2, 3)), label=1)
SHORT = Encoded(rows=((2, 8), (2, 9)), answer=((1,), (1,)), label=0)


def test_rows_are_padded_on_the_right_and_the_mask_covers_the_rest():
    batch = collate([TWO_OPTIONS, SHORT], pad_id=1)
    assert batch.input_ids.tolist() == [[2, 7, 8, 1], [2, 7, 9, 9], [2, 8, 1, 1], [2, 9, 1, 1]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0], [1] * 4, [1, 1, 0, 0], [1, 1, 0, 0]]
    assert batch.labels.tolist() == [1, 0]
    assert batch.tokens == 3 + 4 + 2 + 2


def test_answer_marks_the_positions_that_matter():
    batch = collate([TWO_OPTIONS, SHORT], pad_id=1)
    assert batch.answer.int().tolist() == [[0, 0, 1, 0], [0, 0, 1, 1], [0, 1, 0, 0], [0, 1, 0, 0]]


@given(st.integers(1, 40), st.integers(1, 16), st.integers(0, 5))
def test_every_epoch_has_every_row_once(count, batch_size, seed):
    per_epoch = -(-count // batch_size)
    batches = list(islice(shuffled(count, batch_size, seed), 2 * per_epoch))
    for epoch in (batches[:per_epoch], batches[per_epoch:]):
        assert sorted(i for batch in epoch for i in batch) == list(range(count))
        assert all(len(batch) == batch_size for batch in epoch[:-1])


def test_the_order_depends_on_the_seed_and_the_epoch_only():
    first, second = (list(islice(shuffled(30, 10, seed=4), 6)) for _ in range(2))
    assert first == second
    assert first[:3] != first[3:]
    assert first != list(islice(shuffled(30, 10, seed=5), 6))


def test_shuffling_leaves_the_global_generator_alone():
    before = np.random.get_state()[1].tolist()
    next(shuffled(10, 5, seed=0))
    assert np.random.get_state()[1].tolist() == before


def test_in_order_gives_each_example_once_with_its_number():
    examples = [TWO_OPTIONS, SHORT, TWO_OPTIONS, SHORT, SHORT]
    seen = {}
    for numbers, batch in in_order(examples, batch_size=2, pad_id=1):
        for number, label in zip(numbers, batch.labels.tolist(), strict=True):
            seen[number] = label
    assert seen == {0: 1, 1: 0, 2: 1, 3: 0, 4: 0}


def test_examples_of_like_length_come_together():
    widths = [
        batch.input_ids.shape[1]
        for _, batch in in_order([TWO_OPTIONS, SHORT, TWO_OPTIONS, SHORT], 2, pad_id=1)
    ]
    assert widths == [2, 4]


def test_moving_a_batch_keeps_everything():
    batch = collate([SHORT], pad_id=1)
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.input_ids, batch.input_ids)
    assert moved.tokens == batch.tokens
