"""The order of training rows, and which of them share a forward pass."""

from __future__ import annotations

from itertools import combinations, islice

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lozo_bench.data.batch import BatchLayout, ScoringOptions
from lozo_bench.data.order import PASS_COSTS_TOKENS, _buckets, micro_batches, shuffled
from lozo_bench.tasks.base import Encoded

TWO_OPTIONS = Encoded(rows=((2, 7, 8), (2, 7, 9, 6)), answer=((2,), (2, 3)), label=1)
SHORT = Encoded(rows=((2, 8), (2, 9)), answer=((1,), (1,)), label=0)
SHARED = BatchLayout(pad_id=1)


@given(st.lists(st.integers(1, 900), min_size=1, max_size=7))
def test_buckets_have_the_least_possible_cost(lengths):
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


def test_a_batch_is_split_only_if_that_saves_more_than_a_forward_pass_costs():
    long = Encoded(rows=((2, *[7] * 400, 8), (2, *[7] * 400, 9)), answer=((401,), (401,)), label=0)
    cut = micro_batches([SHORT, long, SHORT, SHORT], SHARED)
    assert [len(group) for group in cut] == [3, 1]
    assert [len(group) for group in micro_batches([SHORT, TWO_OPTIONS] * 4, SHARED)] == [8]
    whole = BatchLayout(pad_id=1, scoring=ScoringOptions(buckets=False))
    assert [len(group) for group in micro_batches([SHORT, long, SHORT, SHORT], whole)] == [4]


@given(st.integers(1, 40), st.integers(1, 16), st.integers(0, 5))
def test_every_epoch_contains_every_row_once(count, batch_size, seed):
    per_epoch = -(-count // batch_size)
    batches = list(islice(shuffled(count, batch_size, seed), 2 * per_epoch))
    for epoch in (batches[:per_epoch], batches[per_epoch:]):
        assert sorted(i for batch in epoch for i in batch) == list(range(count))
        assert all(len(batch) == batch_size for batch in epoch[:-1])


def test_the_order_depends_only_on_the_seed_and_the_epoch():
    first, second = (list(islice(shuffled(30, 10, seed=4), 6)) for _ in range(2))
    assert first == second
    assert first[:3] != first[3:]
    assert first != list(islice(shuffled(30, 10, seed=5), 6))


def test_shuffling_does_not_change_the_global_generator():
    before = np.random.get_state()[1].tolist()
    next(shuffled(10, 5, seed=0))
    assert np.random.get_state()[1].tolist() == before
