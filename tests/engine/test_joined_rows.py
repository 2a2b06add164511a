"""Tensors that are rows of one tensor: where they lie, and when joining them copies nothing."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from lozo_bench.engine.rows import Rows, aligned
from lozo_bench.randomness.draws import Draws

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=6)


def rows_of(lengths):
    return Rows({f"w{i}": length for i, length in enumerate(lengths)})


@given(LENGTHS)
def test_each_tensor_begins_at_a_multiple_of_8_and_none_overlap(lengths):
    rows, end = rows_of(lengths), 0
    for name, start in rows.starts.items():
        assert start == aligned(end)
        end = start + rows.lengths[name]
    assert rows.total == end


@given(LENGTHS, st.integers(1, 3))
def test_joined_tensors_hold_each_tensor_and_views_give_them_back(lengths, columns):
    rows = rows_of(lengths)
    drawn = {name: torch.randn(n, columns) for name, n in rows.lengths.items()}
    views = rows.views(rows.join(drawn))
    assert list(views) == list(drawn)
    assert all(torch.equal(views[name], x) for name, x in drawn.items())


@given(LENGTHS)
def test_views_are_joined_without_a_copy(lengths):
    rows = rows_of(lengths)
    joined = torch.randn(rows.total, 2)
    again = rows.join(rows.views(joined))
    assert again.data_ptr() == joined.data_ptr()
    assert torch.equal(again, joined)


def test_directions_that_were_drawn_together_are_joined_without_a_copy():
    shapes = {"a": (16, 2), "b": (8, 2), "c": (24, 2)}
    drawn = Draws(0).normal("U", 0, shapes)
    assert rows_of([16, 8, 24]).lengths == {"w0": 16, "w1": 8, "w2": 24}
    rows = Rows({name: shape[0] for name, shape in shapes.items()})
    assert rows.join(drawn).data_ptr() == drawn["a"].data_ptr()


def test_tensors_in_another_order_or_with_another_name_are_not_these():
    rows = Rows({"a": 3, "b": 2})
    assert rows.has(["a", "b"])
    assert not rows.has(["b", "a"])
    assert not rows.has(["a"])
