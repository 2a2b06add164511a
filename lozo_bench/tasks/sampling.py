"""The published ways to draw small splits from full data, row for row.

They use numpy's legacy generator. Its streams never change, so a seed always selects the same rows.
Shuffling a list, ``pandas.DataFrame.sample`` and ``permutation`` all give the same order for a
seed. One function therefore reproduces LM-BFF's .tsv tasks, its .csv tasks and MeZO's tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from lozo_bench.errors import UserError, bad_value, raise_all

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

T = TypeVar("T")

LARGEST_SEED = 2**32 - 1
TEST_SEED = 42


def check_seed(seed: int) -> None:
    """Raise BadValueError unless numpy's legacy generator accepts the seed."""
    raise_all(bad_seed(seed))


def bad_seed(seed: int) -> Iterator[UserError]:
    """Yield an error unless numpy's legacy generator accepts the seed."""
    if not 0 <= seed <= LARGEST_SEED:
        yield bad_value("seed", seed, f"a whole number from 0 to {LARGEST_SEED}")


def shuffled(rows: Sequence[T], seed: int) -> list[T]:
    """Return the rows in the order of numpy's legacy permutation for ``seed``."""
    return [rows[index] for index in np.random.RandomState(seed).permutation(len(rows))]


def k_shot(
    rows: Sequence[T], labels: Sequence[Hashable], k: int, seed: int
) -> tuple[list[T], list[T]]:
    """Return LM-BFF's train and dev rows.

    The rows are shuffled. The first ``k`` rows of each label are the train rows and the next ``k``
    are the dev rows. Both lists are grouped by label, in the order in which the labels first occur
    in the shuffle. A label with fewer than ``2 * k`` rows contributes all that it has.

    Source: tools/generate_k_shot_data.py of LM-BFF.

    Args:
        rows: All rows of the train split.
        labels: The label of each row.
        k: The number of rows per label.
        seed: Seed of the shuffle.
    """
    groups: dict[Hashable, list[T]] = {}
    for row, label in shuffled(list(zip(rows, labels, strict=True)), seed):
        groups.setdefault(label, []).append(row)
    train = [row for group in groups.values() for row in group[:k]]
    dev = [row for group in groups.values() for row in group[k : 2 * k]]
    return train, dev


def cut_test(rows: Sequence[T], limit: int = 1000) -> list[T]:
    """Return LM-BFF's test rows: all in file order, or ``limit`` drawn rows if there are more.

    The seed of this draw is always 42, so all splits of a task have the same test set.
    """
    return list(rows) if len(rows) <= limit else shuffled(rows, TEST_SEED)[:limit]


def subsample(rows: Sequence[T], train: int, dev: int, seed: int) -> tuple[list[T], list[T]]:
    """Return MeZO's train and dev rows.

    Of the first ``train + dev`` shuffled rows, the last ``dev`` are the dev rows. If there are
    fewer rows, the dev set keeps its size and the train set shrinks (WSC trains on 54 rows).

    Source: tasks.py:60-100 and run.py:485-488 in large_models of the MeZO release.
    """
    drawn = shuffled(rows, seed)[: train + dev]
    cut = max(len(drawn) - dev, 0)
    return drawn[:cut], drawn[cut:]
