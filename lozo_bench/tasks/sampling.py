"""The two published ways to draw small splits from full data, row for row.

Both draw from numpy's legacy generator, whose streams are frozen, so a seed names the same rows
for ever. Shuffling a list, ``pandas.DataFrame.sample`` and ``permutation`` all walk it in the same
way; one primitive serves LM-BFF's tab separated tasks, its csv tasks, and MeZO's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from lozo_bench.errors import bad_value

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

T = TypeVar("T")

LARGEST_SEED = 2**32 - 1
TEST_SEED = 42


def check_seed(seed: int) -> None:
    """Raise BadValueError unless numpy's legacy generator takes the seed."""
    if not 0 <= seed <= LARGEST_SEED:
        raise bad_value("seed", seed, f"a whole number from 0 to {LARGEST_SEED}")


def shuffled(rows: Sequence[T], seed: int) -> list[T]:
    """``rows`` in the order of numpy's legacy permutation under ``seed``."""
    return [rows[index] for index in np.random.RandomState(seed).permutation(len(rows))]


def k_shot(
    rows: Sequence[T], labels: Sequence[Hashable], k: int, seed: int
) -> tuple[list[T], list[T]]:
    """LM-BFF's train and dev rows: of each label the first ``k`` shuffled rows, and the next ``k``.

    Rows are grouped by label, labels in the order in which the shuffle first shows them. A label
    with fewer than ``2 * k`` rows gives what it has. ``labels`` is as long as ``rows``.
    Source: generate_k_shot_data.py of LM-BFF, spec section 3.6.
    """
    groups: dict[Hashable, list[T]] = {}
    for row, label in shuffled(list(zip(rows, labels, strict=True)), seed):
        groups.setdefault(label, []).append(row)
    train = [row for group in groups.values() for row in group[:k]]
    dev = [row for group in groups.values() for row in group[k : 2 * k]]
    return train, dev


def cut_test(rows: Sequence[T], limit: int = 1000) -> list[T]:
    """LM-BFF's test rows: all in file order, or ``limit`` drawn with seed 42 if there are more.

    The seed is 42 whatever the split's own seed is, so that every split has one test set.
    """
    return list(rows) if len(rows) <= limit else shuffled(rows, TEST_SEED)[:limit]


def subsample(rows: Sequence[T], train: int, dev: int, seed: int) -> tuple[list[T], list[T]]:
    """MeZO's train and dev rows: of ``train + dev`` shuffled rows, the last ``dev`` are dev.

    With fewer rows than asked for, dev stays whole and train shrinks (WSC trains on 54).
    Source: tasks.py and run.py of MeZO's large_models, spec section 3.1.
    """
    drawn = shuffled(rows, seed)[: train + dev]
    cut = max(len(drawn) - dev, 0)
    return drawn[:cut], drawn[cut:]
