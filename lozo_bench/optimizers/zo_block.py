"""Block-wise ZO-SGD: a two-point estimate for each block of the model, on that block alone.

Source: ZO-Bench's block-wise ZO fine-tuning (Zhang et al., arXiv 2402.11592). For each block b of
each layer, the embeddings, the final norm and the head, with z_b ~ N(0, I) on its weights:

    c_b = ( L(X + eps z_b; B) - L(X - eps z_b; B) ) / (2 eps)
    X_b <- X_b - lr c_b z_b

at once, so that the next block is estimated where this one has gone to (`update=at_once`, as the
released code does by default), or when all blocks are estimated (`update=together`). Weights that
are in none of these make one more block.

In ZO-Bench's released code all blocks draw from one seed, so that blocks of equal shapes have the
same z, and embeddings of words and of positions are two blocks. Here every weight has the z of its
name, and they are one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Literal

from lozo_bench.engine.directions import Only
from lozo_bench.engine.draws import Draws
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


class ZoBlock:
    """Zeroth-order SGD block by block.

    Args:
        X: the weights.
        draws: source of z.
        lr: learning rate.
        eps: how far the losses are taken from X.
        update: when a block moves.
    """

    needs = Needs(directions="full_rank")

    def __init__(
        self,
        X: Engine,
        draws: Draws,
        *,
        lr: float,
        eps: float,
        update: Literal["at_once", "together"] = "at_once",
    ) -> None:
        check_not_negative("lr", lr)
        check_positive("eps", eps)
        self.X, self.draws, self.lr, self.eps, self.update = X, draws, lr, eps, update
        self.blocks = list(blocks(X.X).values())
        self.t = 0

    def step(self, score: Score) -> Report:
        """Two forwards and one update for each block."""
        t, self.t = self.t, self.t + 1
        z = Gaussian(self.draws, t)
        losses: list[float] = []
        cs: list[float] = []
        directions = [Only(z, names) for names in self.blocks]
        with self._undone_if_it_fails(directions, cs):
            for direction in directions:
                plus, minus = score.full_rank(direction, (+self.eps, -self.eps))
                c = (plus - minus) / (2 * self.eps)
                if self.update == "at_once":
                    self.X.full_rank_move(direction, -self.lr * c)
                losses.append((plus + minus) / 2)
                cs.append(c)
        if self.update == "together":
            for direction, c in zip(reversed(directions), reversed(cs), strict=True):
                self.X.full_rank_move(direction, -self.lr * c)
        scalars = {"projected_grad": fmean(cs)}
        return Report(fmean(losses), forwards=2 * len(losses), scalars=scalars)

    @contextmanager
    def _undone_if_it_fails(
        self, directions: Sequence[Only], cs: Sequence[float]
    ) -> Iterator[None]:
        """If a later block's loss is not to be had, those that have moved go back."""
        try:
            yield
        except BaseException:
            if self.update == "at_once":
                for direction, c in zip(directions, cs, strict=False):
                    self.X.full_rank_move(direction, self.lr * c)
            raise
