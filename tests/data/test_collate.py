"""Padding, positions that matter, and the order of batches."""

from __future__ import annotations

from itertools import combinations, islice

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lozo_bench.data.collate import BatchLayout, ScoringOptions, collate, in_order
from lozo_bench.data.order import PASS_COSTS_TOKENS, _buckets, micro_batches, shuffled
from lozo_bench.tasks.base import Encoded

TWO_OPTIONS = Encoded(rows=((2, 7, 8), (2, 7, 9, 6)), answer=((2,), (2, 3)), label=1)
SHORT = Encoded(rows=((2, 8), (2, 9)), answer=((1,), (1,)), label=0)
MASKED = Encoded(rows=((2, 8, 4, 3),), answer=((2,),), label=1)
SHARED = BatchLayout(pad_id=1)
ROW_BY_ROW = BatchLayout(pad_id=1, scoring=ScoringOptions(share_prompt=False))


def test_row_by_row_an_option_has_a_row_padded_on_the_right():
    batch = collate([TWO_OPTIONS, SHORT], ROW_BY_ROW)
    assert batch.input_ids.tolist() == [[2, 7, 8, 1], [2, 7, 9, 6], [2, 8, 1, 1], [2, 9, 1, 1]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0], [1] * 4, [1, 1, 0, 0], [1, 1, 0, 0]]
    assert batch.labels.tolist() == [1, 0]
    assert (batch.size, batch.options, batch.tokens) == (2, 2, 3 + 4 + 2 + 2)
    assert batch.block is None


def test_row_by_row_a_token_is_read_one_position_before_it():
    batch = collate([TWO_OPTIONS, SHORT], ROW_BY_ROW)
    assert batch.read.tolist() == [[1, 5, 6], [8, 12, 8]]  # rows of 4; the last fills up
    assert batch.at.tolist() == [[0, 1, 2], [0, 1, 0]]
    assert batch.token.tolist() == [[8, 9, 6], [8, 9, 0]]
    assert batch.option.tolist() == [[0, 1, 1], [0, 1, 2]]
    assert not batch.single_position


def test_behind_one_prompt_options_stand_without_their_last_tokens():
    batch = collate([TWO_OPTIONS, SHORT], SHARED)
    assert batch.input_ids.tolist() == [[2, 7, 9], [2, 1, 1]]
    assert batch.position_ids.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert batch.block.tolist() == [[0, 0, 2], [0, -1, -1]]
    assert batch.read.tolist() == [[1, 2], [3, 3]]
    assert batch.at.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert batch.token.tolist() == [[8, 9, 6], [8, 9, 0]]
    assert batch.tokens == 3 + 1


def test_single_tokens_behind_one_prompt_are_read_at_its_end():
    batch = collate([SHORT, SHORT], SHARED)
    assert batch.input_ids.tolist() == [[2], [2]]
    assert batch.read.tolist() == [[0], [1]]
    assert batch.token.tolist() == [[8, 9], [8, 9]]
    assert batch.single_position
    assert batch.block is None


def test_without_a_common_prompt_or_a_mask_of_its_own_a_batch_goes_row_by_row():
    different = Encoded(rows=((2, 7, 8), (3, 7, 9)), answer=((2,), (2,)), label=0)
    assert len(collate([SHORT, different], SHARED).input_ids) == 4
    unpacked = BatchLayout(pad_id=1, packed=False)
    assert len(collate([TWO_OPTIONS], unpacked).input_ids) == 2
    assert len(collate([SHORT], unpacked).input_ids) == 1


def test_label_words_are_read_at_the_mask():
    batch = collate([MASKED], BatchLayout(pad_id=1, label_ids=(5, 6, 9)))
    assert batch.read.tolist() == [[2]]
    assert batch.token.tolist() == [[5, 6, 9]]
    assert batch.option.tolist() == [[0, 1, 2]]
    assert (batch.single_position, batch.options) == (True, 3)


def test_copies_follow_one_another_and_read_from_their_own_rows():
    batch = collate([TWO_OPTIONS, SHORT], SHARED)
    twice = batch.repeat(2)
    assert twice.input_ids.tolist() == batch.input_ids.tolist() * 2
    assert twice.read.tolist() == [[1, 2], [3, 3], [7, 8], [9, 9]]
    assert twice.labels.tolist() == [1, 0, 1, 0]
    assert twice.block.tolist() == batch.block.tolist() * 2
    assert twice.size == 4
    assert batch.repeat(1) is batch


@given(st.lists(st.integers(1, 900), min_size=1, max_size=7))
def test_buckets_cost_the_least_there_is(lengths):
    def cost(groups):
        return sum(len(g) * max(lengths[i] for i in g) + PASS_COSTS_TOKENS for g in groups)

    groups = _buckets(lengths)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    ways = (
        [order[a:b] for a, b in zip((0, *cuts), (*cuts, len(order)), strict=True)]
        for many in range(len(order))
        for cuts in combinations(range(1, len(order)), many)
    )
    assert cost(groups) == min(map(cost, ways))


def test_a_batch_is_cut_into_parts_only_where_that_saves_more_than_a_pass_costs():
    long = Encoded(rows=((2, *[7] * 400, 8), (2, *[7] * 400, 9)), answer=((401,), (401,)), label=0)
    cut = micro_batches([SHORT, long, SHORT, SHORT], SHARED)
    assert [len(group) for group in cut] == [3, 1]
    assert [len(group) for group in micro_batches([SHORT, TWO_OPTIONS] * 4, SHARED)] == [8]
    whole = BatchLayout(pad_id=1, scoring=ScoringOptions(buckets=False))
    assert [len(group) for group in micro_batches([SHORT, long, SHORT, SHORT], whole)] == [4]


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
    for numbers, batch in in_order(examples, 2, SHARED):
        for number, label in zip(numbers, batch.labels.tolist(), strict=True):
            seen[number] = label
    assert seen == {0: 1, 1: 0, 2: 1, 3: 0, 4: 0}


def test_examples_of_like_length_come_together():
    examples = [TWO_OPTIONS, SHORT, TWO_OPTIONS, SHORT]
    widths = [batch.input_ids.shape[1] for _, batch in in_order(examples, 2, ROW_BY_ROW)]
    assert widths == [2, 4]


def test_moving_a_batch_keeps_everything():
    batch = collate([TWO_OPTIONS], SHARED)
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.block, batch.block)
    assert moved.tokens == batch.tokens
