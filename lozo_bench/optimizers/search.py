"""The interface of a search of R^d, as the loop over layers sees it: ask for points, tell losses.

A search minimizes a loss that only the caller can compute. One turn of it is `asks` times

    points = search.ask(turn)       the caller computes the loss of each point
    search.tell(losses)

`ask` and `tell` never call the model and never draw from a global generator. All random numbers
are keyed by (run seed, role, turn, name of the search, number of the draw in the turn), so what a
turn draws depends on no earlier call, and searches with different names draw different numbers.

A turn counts when its last `tell` is done. If all losses of a turn failed, the caller does not tell
them: it goes on with the next turn, and the search is as good as if the turn had been left out. A
turn that was told only in part is given up in the same way by the first `ask` of the next turn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from torch import Tensor

Point = Literal["best_ever", "generation_best", "mean"]


class Search(Protocol):
    """A search of R^d for a point with a small loss.

    Attributes:
        points: which points `point` can return. A search without a distribution has no mean.
        asks: how many times a turn asks: once, or twice if the turn's last points depend on the
            losses of its first ones.
        best_loss: the smallest loss of all full turns; infinite before the first.
    """

    points: ClassVar[tuple[Point, ...]]

    @property
    def asks(self) -> int: ...  # noqa: D102

    @property
    def best_loss(self) -> float: ...  # noqa: D102

    def ask(self, turn: int) -> Tensor:
        """Return the points to score, float64 [n, d] on the CPU; all asks of a turn sum to popsize.

        To ask again without having told returns the same points again.

        Args:
            turn: the number of the turn. Numbers grow from turn to turn; some may be left out.
        """
        ...

    def tell(self, losses: Sequence[float]) -> None:
        """Tell the losses of the points of the last `ask`, in its order.

        Args:
            losses: infinite for a point whose loss was infinite or no number. At least one of the
                turn's first losses is finite.
        """
        ...

    def point(self, which: Point) -> Tensor:
        """Return a point, float64 [d] on the CPU; there is one after the first full turn.

        Args:
            which: ``best_ever``: the point with the smallest loss that was ever told, as it was
                told; ``generation_best``: the same of the last full turn; ``mean``: the mean of the
                distribution that the search draws from.
        """
        ...

    def numbers(self) -> dict[str, float]:
        """Return what is worth a line in the log, by name, such as the step size."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return what the search has been told, as tensors. It is enough to come back bitwise."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what `state` returned, in a search made from the same options."""
        ...


@dataclass
class Found:
    """The best points of a search, with their losses as they were told.

    Args:
        best_ever: the point with the smallest loss of all full turns.
        best_loss: its loss.
        generation_best: the same of the last full turn.
    """

    best_ever: Tensor | None = None
    best_loss: float = math.inf
    generation_best: Tensor | None = None

    def add(self, points: Tensor, losses: Sequence[float]) -> None:
        """Take in the points of a full turn. Of equal losses, the first counts."""
        best = min(range(len(losses)), key=losses.__getitem__)
        self.generation_best = points[best].clone()
        if losses[best] < self.best_loss:
            self.best_ever, self.best_loss = self.generation_best, losses[best]

    def point(self, which: Point) -> Tensor:
        """Return a copy of a point."""
        found = self.best_ever if which == "best_ever" else self.generation_best
        if found is None:
            raise ValueError("a search has no point before its first full turn")
        return found.clone()


def check_losses(losses: Sequence[float], count: int) -> None:
    """Raise ValueError unless these are losses of ``count`` points, at least one of them finite."""
    if len(losses) != count:
        raise ValueError(f"{len(losses)} losses for {count} points")
    if any(math.isnan(loss) for loss in losses) or not any(map(math.isfinite, losses)):
        raise ValueError("a failed point is told as infinite, and a turn has a finite loss")
