"""In-context learning: the answers to other rows stand before each row; nothing is trained.

Source: MeZO's large-model code (icl.sh, tasks.py), spec lozo_mezo section 2.7. The published runs
show every row 32 others of its own, drawn from all train rows under a seed of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, TypeVar

import numpy as np

from lozo_bench.engine.draws import Draws
from lozo_bench.errors import bad_value
from lozo_bench.optimizers.base import Engine, Report, Score, Steps, check_count

T = TypeVar("T")

_SEEDS = 10_000  # per-example seeds are drawn below this
_LARGEST_SEED = 2**32 - 1


class InContext:
    """The model answers after having been shown rows with their answers.

    Args:
        X: the weights; they stay as they are.
        draws: not used: which rows are shown is drawn as published.
        demonstrations: so many rows are shown.
        sets: ``per_example`` shows every row others; ``fixed`` shows all rows the same.
        seed: of what is shown; published: 0.
        calibrated: score options against their probability without the row (SFC).
        calibrate_shown: the demonstrations stand before the calibration text too (ICL-SFC).
    """

    steps: ClassVar[Steps] = Steps.none

    def __init__(
        self,
        X: Engine,
        draws: Draws,
        *,
        demonstrations: int = 32,
        sets: Literal["per_example", "fixed"] = "per_example",
        seed: int = 0,
        calibrated: bool = False,
        calibrate_shown: bool = False,
    ) -> None:
        check_count("demonstrations", demonstrations)
        if not 0 <= seed <= _LARGEST_SEED:
            raise bad_value("seed", seed, f"a whole number from 0 to {_LARGEST_SEED}")
        if calibrate_shown and not calibrated:
            raise bad_value("calibrate_shown", True, "false, as calibrated is false")
        self.lr, self.demonstrations, self.sets, self.seed = 0.0, demonstrations, sets, seed
        self.calibrated, self.calibrate_shown = calibrated, calibrate_shown

    def shown(self, pool: Sequence[T], rows: int) -> Iterator[list[T]]:
        """What is shown before each of so many rows, drawn from ``pool`` as published.

        Under ``seed`` every row gets a seed of its own, and under that the first rows of a
        permutation of the pool; with ``fixed`` sets ``seed`` itself gives that permutation.
        """
        if self.sets == "fixed":
            seeds = [self.seed] * rows
        else:
            seeds = np.random.RandomState(self.seed).randint(0, _SEEDS, rows).tolist()
        for seed in seeds:
            order = np.random.RandomState(seed).permutation(len(pool))
            yield [pool[i] for i in order[: self.demonstrations]]

    def step(self, score: Score) -> Report:
        """There is none; a run of this method has 0 steps."""
        raise NotImplementedError
