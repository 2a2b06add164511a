"""The interfaces of an allocation, which wraps an optimizer, and of a proxy of modules' worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from lozo_bench.engine.protocol import Engine
from lozo_bench.engine.score import Score
from lozo_bench.optimizers.base import Needs, Optimizer
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import Tuned, Tuning
from lozo_bench.tuning.low_rank_modules import LowRankModule


@dataclass(frozen=True, slots=True)
class Length:
    """How long a run is.

    Args:
        steps: of the run.
        epochs: of each stream that the needs declare, the batches of an epoch; the stream of the
            steps' own batches is named ''.
    """

    steps: int
    epochs: Mapping[str, int]

    @property
    def epoch(self) -> int:
        """The steps of an epoch."""
        return self.epochs[""]


class Allocation(Protocol):
    """A method of allocation. Its constructor takes the options and checks their ranges."""

    def needs(self, inner: Needs, tuning: Tuning) -> Needs:
        """Return what the run needs, if the optimizer that is wrapped needs ``inner``.

        Raises:
            UserError: this allocation cannot be used with such an optimizer, or with this tuning.
        """
        ...

    def around(
        self, optimizer: Optimizer, engine: Engine, tuned: Tuned, draws: Draws, length: Length
    ) -> Optimizer:
        """Return an optimizer that makes the steps of ``optimizer`` and allocates.

        Args:
            optimizer: what is wrapped.
            engine: holds the weights.
            tuned: what is trained.
            draws: source of random numbers.
            length: how long the run is.

        Raises:
            UserError: this allocation cannot be used with this tuning.
        """
        ...


class Proxy(Protocol):
    """Scores low-rank modules. Its constructor takes the options and checks their ranges.

    Attributes:
        gradient: whether it differentiates the loss.
        batches: how many scoring batches it looks at, at most; None: all that there are.
    """

    gradient: bool
    batches: int | None

    def scores(
        self,
        modules: Sequence[LowRankModule],
        batches: Sequence[Score],
        draws: Draws,
        number: int,
    ) -> Tensor:
        """Return the score of each module; more is better. Float64 [N], on the CPU.

        While it is called, all modules are on.

        Args:
            modules: what to score.
            batches: losses on batches of training rows, the same rows in every allocation.
            draws: source of random numbers.
            number: of the allocation, from 0; a part of the key of what is drawn.

        Raises:
            NonFiniteLossError: a loss is not finite.
            Stopped: the run was asked to stop.
        """
        ...
