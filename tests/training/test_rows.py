"""Which rows the batches of a run consist of."""

from __future__ import annotations

from itertools import chain, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lozo_bench.config.schema import Mix
from lozo_bench.data.order import shuffled
from lozo_bench.errors import UserError
from lozo_bench.optimizers.base import Needs, Stream
from lozo_bench.training.rows import TrainingRows


def some(stream, count=10, batch_size=4, seed=0, name="s", batches=6):
    rows = TrainingRows(count, batch_size, seed, Needs(streams={name: stream}))
    return list(islice(rows.batches(name), batches))


def test_the_steps_own_batches_are_the_shuffled_rows():
    rows = TrainingRows(10, 4, 7, Needs())
    assert list(islice(rows.batches(), 6)) == list(islice(shuffled(10, 4, 7), 6))


def test_streams_are_shuffled_by_their_name():
    assert some(Stream(), name="a") != some(Stream(), name="b")
    assert some(Stream(), name="a", seed=1) != some(Stream(), name="a", seed=2)
    assert some(Stream(), name="a") == some(Stream(), name="a")


def test_a_fixed_order_is_the_same_in_every_epoch():
    assert some(Stream(order="fixed"))[:3] == some(Stream(order="fixed"))[3:]
    assert sorted(chain(*some(Stream(order="fixed"))[:3])) == list(range(10))


def test_all_rows_are_every_batch_in_the_same_order():
    batches = some(Stream(batch_size="all"))
    assert all(batch == batches[0] for batch in batches)
    assert sorted(batches[0]) == list(range(10))


@given(
    count=st.integers(3, 60), cut=st.floats(0.34, 0.66), seed=st.integers(0, 9),
    size=st.integers(1, 9),
)  # fmt: skip
def test_streams_of_disjoint_shares_share_no_row_and_miss_none(count, cut, seed, size):
    needs = Needs(
        streams={
            "upper": Stream(rows=(0.0, cut), batch_size=size),
            "lower": Stream(rows=(cut, 1.0), batch_size=size),
        }
    )
    rows = TrainingRows(count, 4, seed, needs)
    seen = {}
    for name in needs.streams:
        epoch = -(-rows.sizes()[name][0] // size)
        seen[name] = list(chain(*islice(rows.batches(name), epoch)))
    assert sorted(seen["upper"] + seen["lower"]) == list(range(count))


def test_a_stream_without_rows_is_refused():
    with pytest.raises(UserError, match=r"the stream 'few'.* has no rows"):
        TrainingRows(3, 2, 0, Needs(streams={"few": Stream(rows=(0.0, 0.1))}))


@pytest.mark.parametrize("options", [{"order": "foo"}, {"batch_size": "foo"}, {"batch_size": 0}])
def test_an_unknown_order_or_batch_size_is_refused(options):
    with pytest.raises(UserError, match=f"^{next(iter(options))}: given"):
        Stream(**options)


def test_a_stream_needs_a_name():
    with pytest.raises(UserError, match=r"^streams: given ''"):
        Needs(streams={"": Stream()})


@pytest.mark.parametrize("rows", [(0.5, 0.5), (-0.1, 1.0), (0.0, 1.1), (0.9, 0.1)])
def test_shares_that_are_none_are_refused(rows):
    with pytest.raises(UserError, match="0 <= start < end <= 1"):
        Stream(rows=rows)


def test_a_stream_that_is_not_declared_is_refused_with_those_that_are():
    rows = TrainingRows(6, 2, 0, Needs(streams={"upper": Stream()}))
    with pytest.raises(UserError, match=r"^optimizer: .* 'uper'; declared in its needs: upper$"):
        rows.batches("uper")


TASKS = ["a"] * 6 + ["b"] * 3


def of_tasks(stream, name="s", mix=Mix.rows, batches=6, size=3):
    rows = TrainingRows(9, size, 0, Needs(streams={name: stream}), TASKS, mix)
    return list(islice(rows.batches(name), batches))


def test_a_stream_of_a_task_has_its_rows_only_and_its_shares_are_disjoint():
    lower = set(chain(*of_tasks(Stream(rows=(0, 2 / 3), task="a"))))
    upper = set(chain(*of_tasks(Stream(rows=(2 / 3, 1), task="a"))))
    assert (len(lower), len(upper)) == (4, 2)
    assert lower | upper == set(range(6))
    every = set(chain(*of_tasks(Stream(rows=(2 / 3, 1)))))
    assert every & set(range(6)) == upper, "a share of all tasks is that share of each"
    assert len(every) == 3


def test_tasks_take_turns_in_filling_batches_that_are_mixed_equally():
    batches = of_tasks(Stream(), mix=Mix.equal, size=4)
    assert batches == of_tasks(Stream(), mix=Mix.equal, size=4)
    assert [sum(row < 6 for row in batch) for batch in batches] == [2] * 6
    rows = list(chain(*batches))
    assert sorted(row for row in rows if row < 6) == sorted([*range(6), *range(6)])
    mixed = list(chain(*of_tasks(Stream(), size=9, batches=2)))
    assert sorted(mixed) == sorted([*range(9), *range(9)]), "by default every row comes once"


def test_each_batch_is_of_one_task_if_they_have_batches_in_turn():
    batches = of_tasks(Stream(), mix=Mix.turns, batches=8)
    assert [len({row < 6 for row in batch}) for batch in batches] == [1] * 8
    assert sum(batch[0] < 6 for batch in batches) == 4


def test_a_stream_of_a_task_that_the_run_does_not_train_is_refused():
    with pytest.raises(UserError, match=r"rows of the task 'c'; the run trains a, b; what to do:"):
        of_tasks(Stream(task="c"))
    with pytest.raises(UserError, match="the run trains a single task"):
        some(Stream(task="a"))
