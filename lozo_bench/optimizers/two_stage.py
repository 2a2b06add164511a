"""Two stages: an adapter by first order, and then the weights by zeroth order.

A rival of Bilevel-ZOFO (Shirkavand et al., arXiv 2502.03604) without a coupling. Of K steps, the
first K_1 train the adapter a at the weights theta, and the others theta at the adapter:

    (1)  step k <= K_1:  a <- Adam( a, clip( grad_a L(theta, a; B) ) )
    (2)  step k >  K_1:  theta <- theta - lr c z,   c the slope of L(theta, a; B) along z
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from lozo_bench.engine.together import Term
from lozo_bench.engine.value_sets import ValueSets
from lozo_bench.errors import bad_value
from lozo_bench.optimizers.adapter_steps import (
    Rates,
    adam_over,
    adam_step,
    check_no_fp16,
    gradients_of,
)
from lozo_bench.optimizers.backbone_steps import Backbone, BackboneOptions
from lozo_bench.optimizers.base import (
    Engine,
    Needs,
    Report,
    Score,
    check_count,
    check_not_negative,
    check_positive,
)
from lozo_bench.randomness.draws import Draws


class TwoStage:
    """First-order steps of an adapter, then zeroth-order steps of the weights.

    Args:
        engine: holds theta and the adapter, of which one set of values is used.
        draws: source of z, or of U and V.
        lr: learning rate of theta.
        lr_p: learning rate of the adapter.
        first_stage: the share K_1 / K of the steps.
        eps: see `BackboneOptions`, also for ``fd``, ``directions``, ``rank``, ``nu`` and ``upper``.
        total_steps: K.
        dropout: whether (1) uses the dropout of the model's config.
        autocast: the precision of the model's passes.
        max_grad_norm: a gradient of the adapter whose norm exceeds this is clipped to it.
    """

    needs = Needs(directions="full_rank", gradient=True, replayable=False, two_level=True)

    def __init__(
        self,
        engine: Engine,
        draws: Draws,
        *,
        lr: float,
        lr_p: float,
        first_stage: float,
        eps: float,
        fd: Literal["forward", "central"],
        directions: Literal["full_rank", "low_rank"],
        rank: int,
        nu: int,
        upper: Literal["sgd", "adam"],
        total_steps: int,
        dropout: bool,
        autocast: str | None,
        max_grad_norm: float | None,
    ) -> None:
        check_not_negative("lr", lr)
        check_not_negative("lr_p", lr_p)
        check_count("total_steps", total_steps)
        check_no_fp16(autocast)
        if max_grad_norm is not None:
            check_positive("max_grad_norm", max_grad_norm)
        if not 0 <= first_stage <= 1:
            raise bad_value("first_stage", first_stage, "a number from 0 to 1")
        options = BackboneOptions(directions, rank, nu, eps, fd, upper)
        self.needs = replace(TwoStage.needs, directions=directions, dropout=dropout)
        self.engine, self.sets = engine, ValueSets(engine.extras)
        self.theta = Backbone(engine, draws, options)
        self.adam = adam_over(self.sets.parameters)
        self.rates = Rates(lr, lr_p, 0.0)
        self.lr, self.max_grad_norm = self.rates.first, max_grad_norm
        self.first_steps = round(first_stage * total_steps)  # K_1
        self.t = 0

    def step(self, score: Score) -> Report:
        """Make one step: one forward and one backward pass, or two forward passes."""
        t, self.t = self.t, self.t + 1
        if t < self.first_steps:
            adapter = self.sets.parameters
            loss, g = gradients_of(score, self.engine, adapter)
            rate = self.rates.p(self.lr)
            norm = adam_step(self.adam, adapter, g, rate, self.max_grad_norm)  # (1)
            return Report(loss, forwards=1, backwards=1, scalars={"grad_norm": norm})
        z = self.theta.direction(t - self.first_steps)
        (c,), (loss,) = self.theta.slopes(z, [Term(score, lambda: None)], [None])
        self.theta.move(z, c, self.rates.theta(self.lr))  # (2)
        return Report(loss, forwards=2, scalars={"projected_grad": c})
