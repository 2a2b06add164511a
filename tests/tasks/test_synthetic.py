"""The sources of the built-in tasks."""

from __future__ import annotations

from collections import Counter

import pytest

from lozo_bench.errors import UserError
from lozo_bench.tasks.base import Example
from lozo_bench.tasks.synthetic import Synthetic

CLASSES = {"reviews": 2, "entailment": 3, "topics": 6}
FIELDS = {
    "reviews": {"sentence"},
    "entailment": {"premise", "hypothesis"},
    "topics": {"question"},
}


def _texts(rows: list[Example]) -> set[str]:
    return {text for row in rows for text in row.fields.values()}


@pytest.mark.parametrize("task", CLASSES)
def test_sets_have_the_requested_size_are_balanced_and_have_their_fields(task: str) -> None:
    splits = Synthetic(task, train=60, dev=30, test=36, seed=0).splits()
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (60, 30, 36)
    assert Counter(r.label for r in splits.train) == dict.fromkeys(
        range(CLASSES[task]), 60 // CLASSES[task]
    )
    assert all(set(row.fields) == FIELDS[task] for row in splits.train + splits.test)


@pytest.mark.parametrize("task", CLASSES)
def test_only_the_test_rows_are_independent_of_the_seed(task: str) -> None:
    zero = Synthetic(task, train=60, dev=30, test=36, seed=0).splits()
    one = Synthetic(task, train=60, dev=30, test=36, seed=1).splits()
    assert zero.test == one.test
    assert zero.train != one.train
    assert zero.dev != one.dev


@pytest.mark.parametrize("task", CLASSES)
def test_no_sentence_is_in_two_splits_even_across_seeds(task: str) -> None:
    runs = [Synthetic(task, train=300, dev=120, test=120, seed=s).splits() for s in (0, 1)]
    train = _texts(runs[0].train) | _texts(runs[1].train)
    dev = _texts(runs[0].dev) | _texts(runs[1].dev)
    test = _texts(runs[0].test)
    assert not train & dev
    assert not train & test
    assert not dev & test


def test_a_larger_test_set_begins_with_the_smaller_one() -> None:
    small = Synthetic("topics", train=6, dev=6, test=12, seed=0).splits().test
    large = Synthetic("topics", train=6, dev=6, test=60, seed=0).splits().test
    assert large[:12] == small


def test_rows_carry_their_origin() -> None:
    splits = Synthetic("reviews", train=4, dev=4, test=4, seed=0).splits()
    assert [row.where for row in splits.dev] == [f"reviews:dev:{n}" for n in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task": "review"}, "task: given 'review'; allowed: reviews, entailment"),
        ({"train": 1}, "train: given 1; allowed: at least 2"),
        ({"dev": 0}, "dev: given 0; allowed: at least 2"),
        ({"seed": -1}, "seed: given -1; allowed: a whole number >= 0"),
    ],
)
def test_invalid_argument_is_reported_with_its_key(wrong: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"task": "reviews", "train": 8, "dev": 8, "test": 8, "seed": 0}
    with pytest.raises(UserError) as caught:
        Synthetic(**(arguments | wrong))  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)
