"""Block-wise ZO-SGD: a separate two-point estimate for each block of the model.

Source: ZO-Bench's block-wise ZO fine-tuning (Zhang et al., arXiv 2402.11592). The blocks b are each
layer, the embeddings, the final norm and the head; weights in none of these form one more block.
For each block, with z_b ~ N(0, I) on its weights and 0 elsewhere:

    (1)  c_b = ( L(X + eps z_b; B) - L(X - eps z_b; B) ) / (2 eps)
    (2)  X_b <- X_b - lr c_b z_b

With `update=at_once`, the default of the released code, (2) follows (1) immediately, so that the
next block is estimated at the new weights of this one. With `update=together`, all blocks are
updated after all of them have been estimated.

ZO-Bench's released code draws all blocks from one seed, so that blocks of equal shapes have the
same z, and it treats the embeddings of words and of positions as two blocks. Here every weight has
the z of its name, and all embeddings are one block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Literal

from lozo_bench.engine.directions import Restricted
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.optimizers.base import (
    Engine,
    Needs,
    Report,
    Score,
    check_not_negative,
    check_positive,
)
from lozo_bench.optimizers.blocks import blocks
from lozo_bench.optimizers.estimate import central_difference
from lozo_bench.randomness.draws import Draws


class ZoBlock:
    """Zeroth-order SGD block by block.

    Args:
        engine: holds the weights X.
        draws: source of z.
        lr: learning rate.
        eps: distance from X at which the losses are taken.
        update: when the blocks are updated: ``at_once``, each before the next one is estimated;
            ``together``, after all of them have been estimated.
    """

    needs = Needs(directions="full_rank")

    def __init__(
        self,
        engine: Engine,
        draws: Draws,
        *,
        lr: float,
        eps: float,
        update: Literal["at_once", "together"] = "at_once",
    ) -> None:
        check_not_negative("lr", lr)
        check_positive("eps", eps)
        self.engine, self.draws, self.lr, self.eps, self.update = engine, draws, lr, eps, update
        self.blocks = list(blocks(engine.X).values())
        self.t = 0

    def step(self, score: Score) -> Report:
        """Make one step: two forward passes and one update for each block."""
        t, self.t = self.t, self.t + 1
        z = Gaussian(self.draws, t)
        losses: list[float] = []
        cs: list[float] = []
        directions = [Restricted(z, names) for names in self.blocks]
        with self._undoing_updates_on_failure(directions, cs):
            for direction in directions:
                loss, c = central_difference(score.full_rank, direction, self.eps)  # (1)
                if self.update == "at_once":
                    self.engine.full_rank_move(direction, -self.lr * c)  # (2)
                losses.append(loss)
                cs.append(c)
        if self.update == "together":
            for direction, c in zip(reversed(directions), reversed(cs), strict=True):
                self.engine.full_rank_move(direction, -self.lr * c)  # (2)
        scalars = {"projected_grad": fmean(cs)}
        return Report(fmean(losses), forwards=2 * len(losses), scalars=scalars)

    @contextmanager
    def _undoing_updates_on_failure(
        self, directions: Sequence[Restricted], cs: Sequence[float]
    ) -> Iterator[None]:
        """If a later block cannot be estimated, undo the updates of the blocks before it."""
        try:
            yield
        except BaseException:
            if self.update == "at_once":
                for direction, c in zip(directions, cs, strict=False):
                    self.engine.full_rank_move(direction, self.lr * c)
            raise
