"""In-context learning: which training rows are shown, with their answers, before each row.

Source: MeZO's large-model code (icl.sh, tasks.py). In the published runs every row is shown 32
demonstrations, drawn for that row from all training rows under a seed of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from lozo_bench.config.schema import EvaluationConfig, Sets

T = TypeVar("T")

_SEEDS = 10_000  # each row's seed is below this


def demonstrations(config: EvaluationConfig, pool: Sequence[T], rows: int) -> Iterator[list[T]]:
    """Draw what is shown before each of ``rows`` rows, as published.

    ``config.seed`` gives every row a seed of its own; the row's demonstrations are the first ones
    of a permutation of ``pool`` under that seed. With ``sets=fixed``, ``config.seed`` itself gives
    one permutation for all rows. A pool of fewer rows than ``config.shots`` is shown whole.
    """
    if config.sets is Sets.fixed:
        seeds = [config.seed] * rows
    else:
        seeds = np.random.RandomState(config.seed).randint(0, _SEEDS, rows).tolist()
    for seed in seeds:
        order = np.random.RandomState(seed).permutation(len(pool))
        yield [pool[i] for i in order[: config.shots]]
