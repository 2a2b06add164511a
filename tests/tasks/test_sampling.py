from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lozo_bench.tasks.sampling import cut_test, k_shot, shuffled, subsample

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

labels_k_seed = st.tuples(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=60),
    st.integers(1, 8),
    st.integers(0, 2**32 - 1),
)


@given(labels_k_seed)
def test_k_shot_takes_at_most_k_rows_of_each_label(
    drawn: tuple[list[str], int, int],
) -> None:
    labels, k, seed = drawn
    train, dev = k_shot(range(len(labels)), labels, k, seed)
    for label, count in Counter(labels).items():
        assert sum(labels[row] == label for row in train) == min(k, count)
        assert sum(labels[row] == label for row in dev) == min(k, max(count - k, 0))


@given(labels_k_seed)
def test_k_shot_train_and_dev_share_no_row(drawn: tuple[list[str], int, int]) -> None:
    labels, k, seed = drawn
    train, dev = k_shot(range(len(labels)), labels, k, seed)
    assert len({*train, *dev}) == len(train) + len(dev)


@given(labels_k_seed)
def test_k_shot_does_not_depend_on_numpys_global_generator(
    drawn: tuple[list[str], int, int],
) -> None:
    labels, k, seed = drawn
    first = k_shot(range(len(labels)), labels, k, seed)
    np.random.random(3)
    assert k_shot(range(len(labels)), labels, k, seed) == first


def test_k_shot_changes_with_the_seed() -> None:
    labels = ["a", "b"] * 50
    assert k_shot(range(100), labels, 16, 13) != k_shot(range(100), labels, 16, 21)


def test_k_shot_groups_labels_by_their_first_appearance_in_the_shuffle() -> None:
    # numpy's legacy permutation of 10 under seed 42 is 8 1 5 0 7 2 9 4 3 6
    labels = ["even", "odd"] * 5
    train, dev = k_shot(range(10), labels, 2, 42)
    assert train == [8, 0, 1, 5]
    assert dev == [2, 4, 7, 9]


def test_shuffled_gives_the_published_first_rows_of_sst2() -> None:
    # The first indices that MeZO's code draws for SST-2 with seed 0.
    assert shuffled(range(67349), 0)[:5] == [43787, 16159, 59015, 5108, 67052]
    assert shuffled(range(872), 0)[:5] == [372, 676, 548, 293, 382]


def test_small_test_set_keeps_its_order() -> None:
    assert cut_test(range(1000)) == list(range(1000))


def test_large_test_set_is_cut_with_seed_42() -> None:
    # The first row numbers in LM-BFF's SNLI test file, which is drawn from 9,842 rows.
    cut = cut_test(range(9842))
    assert cut[:5] == [7988, 7120, 106, 439, 2420]
    assert len(cut) == 1000


def test_last_drawn_rows_are_the_dev_rows() -> None:
    train, dev = subsample(range(67349), 1000, 500, seed=0)
    assert (len(train), len(dev)) == (1000, 500)
    assert train[:5] == [43787, 16159, 59015, 5108, 67052]
    assert train + dev == shuffled(range(67349), 0)[:1500]


def test_dev_set_keeps_its_size_if_there_are_few_rows() -> None:
    # WSC has 554 rows, so the published runs train on 54.
    train, dev = subsample(range(554), 1000, 500, seed=0)
    assert (len(train), len(dev)) == (54, 500)


def indices(path: Path) -> list[int]:
    """Read the row numbers in the full data, which LM-BFF's NLI files contain."""
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    assert lines[0].startswith("index\t")
    return [int(line.split("\t")[0]) for line in lines[1:]]


@pytest.mark.parametrize(
    ("file", "rows"),
    [
        ("MNLI/16-13/test_matched.tsv", 9815),
        ("MNLI/512-42/test_matched.tsv", 9815),
        ("SNLI/16-21/test.tsv", 9842),
    ],
)
def test_lm_bff_test_rows_are_reproduced(
    real_data: Callable[[str], Path], file: str, rows: int
) -> None:
    assert cut_test(range(rows)) == indices(real_data("kshot") / file)


@pytest.mark.parametrize("split", ["16-13", "16-21", "16-42", "512-42"])
@pytest.mark.parametrize(
    ("task", "rows", "classes", "dev_file"),
    [
        ("RTE", 2490, 2, "dev.tsv"),
        ("MNLI", 392702, 3, "dev_matched.tsv"),
        ("SNLI", 549367, 3, "dev.tsv"),
    ],
)
def test_lm_bff_train_and_dev_rows_are_reproduced(
    real_data: Callable[[str], Path], task: str, rows: int, classes: int, dev_file: str, split: str
) -> None:
    folder = real_data("kshot") / task / split
    k, seed = (int(part) for part in split.split("-"))
    train, dev = indices(folder / "train.tsv"), indices(folder / dev_file)
    # Without the full data, only the labels of the rows that LM-BFF drew are known. All other rows
    # get the label "?". This is valid because no such row comes before the end of the class that
    # is completed first; the last assertion checks it.
    labels = ["?"] * rows
    for drawn in (train, dev):
        for place, row in enumerate(drawn):
            labels[row] = str(place // k)
    ours = k_shot(range(rows), labels, k, seed)
    known = tuple([row for row in part if labels[row] != "?"] for part in ours)
    assert known == (train, dev)
    order = shuffled(range(rows), seed)
    position = {row: number for number, row in enumerate(order)}
    first_full = min(position[dev[(c + 1) * k - 1]] for c in range(classes))
    assert all(labels[row] != "?" for row in order[: first_full + 1])
