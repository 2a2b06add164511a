"""Bilevel-ZOFO: the weights by zeroth order, an adapter by first order, as two coupled problems.

Source: Shirkavand et al., "Bilevel ZOFO: Bridging Parameter-Efficient and Zeroth-Order Techniques
for Efficient LLM Fine-Tuning and Meta-Training", arXiv 2502.03604. With the weights theta, two
copies p and s of an adapter's values, the loss F on upper rows and G on lower rows:

    min_{theta,p} max_s  H = F(theta, p) + lambda ( G(theta, p) - G(theta, s) )

Training alternates between T lower steps and one upper step:

    (1)  lower:  s <- Adam( s, clip( grad_s G(theta, s; B) ) )
    (2)  upper:  g = grad_p F(theta, p; B_f) + lambda grad_p G(theta, p; B_p)
    (3)          c = ( H(theta + eps z) - H(theta) ) / eps              or a central difference
    (4)          theta <- theta - lr c z,      p <- Adam( p, g )         both from the same point

All terms of H use the same z and the same batches; p and s are not perturbed. The direction z is a
full-rank Gaussian (MeZO's), or U V^T of low rank (LOZO's). (1) and (2) use dropout, (3) does not.

With lambda = 0 and T = 0 it is hybrid fine-tuning: theta and p at once, on one problem. With
``barrier``, lambda is BOME's (Ye et al., arXiv 2209.08709), from the same estimates: with f = F and
q = G(theta, p) - G(theta, s), and inner products over (theta, p),

    (5)  lambda = max( ( barrier |grad q|^2 - <grad f, grad q> ) / |grad q|^2, 0 )

The released code keeps a gradient and two moments of the size of theta (``upper=adam``), and gives
theta and p one learning rate. It takes b - c = G(theta, p) - G(theta, s) from rounded means; here
differences are taken in float64 from the losses of the examples.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from lozo_bench.engine.together import Term
from lozo_bench.engine.value_sets import ValueSets
from lozo_bench.errors import bad_value
from lozo_bench.optimizers.adapter_steps import (
    Gradients,
    Rates,
    adam_over,
    adam_step,
    check_no_fp16,
    dot,
    gradients_of,
    has_dropout,
)
from lozo_bench.optimizers.backbone_steps import Backbone, BackboneOptions
from lozo_bench.optimizers.base import (
    Engine,
    Event,
    Needs,
    Report,
    Score,
    Stream,
    check_not_negative,
    check_positive,
)
from lozo_bench.optimizers.bilevel_schedule import BilevelSchedule, StepCounting
from lozo_bench.randomness.draws import Draws

P, S = 0, 1  # the numbers of the two sets of values
SETS = ("p", "s")
UPPER = "upper"


class BilevelZofo:
    """Zeroth-order steps of the weights and first-order steps of two copies of an adapter.

    Args:
        engine: holds theta and the adapter; see `lozo_bench.engine.value_sets`.
        draws: source of z, or of U and V.
        lr: learning rate of theta.
        lr_p: learning rate of p.
        lr_s: learning rate of s.
        lambda_: lambda, the weight of the lower problem.
        inner_steps: T; 0: each step is an upper one.
        eps: distance from theta at which losses are taken.
        fd: ``forward``: the difference from the loss at theta; ``central``: between both sides.
        directions: ``full_rank`` or ``low_rank``.
        rank: r of low-rank directions.
        nu: number of upper steps for which V is kept.
        upper: ``sgd``, or ``adam``, which keeps two moments of the size of theta.
        barrier: eta of BOME's lambda; None: lambda is constant.
        reset_s: ``each_outer``: before its T lower steps, s is set to p.
        eval_with: which copy is evaluated and tested; ``both``: the one that is better on dev.
        upper_rows: the share of the training rows that is the upper problem's; the rest is the
            lower one's. None: both have all rows.
        step_counting: see `BilevelSchedule`.
        total_steps: the run's steps.
        dropout: whether (1) and (2) use the dropout of the model's config.
        autocast: the precision of the model's passes.
        max_grad_norm: a gradient of s whose norm exceeds this is clipped to it; None: it is not.
    """

    needs = Needs(directions="full_rank", gradient=True, replayable=False, two_level=True)

    def __init__(
        self,
        engine: Engine,
        draws: Draws,
        *,
        lr: float,
        lr_p: float,
        lr_s: float,
        lambda_: float,
        inner_steps: int,
        eps: float,
        fd: Literal["forward", "central"],
        directions: Literal["full_rank", "low_rank"],
        rank: int,
        nu: int,
        upper: Literal["sgd", "adam"],
        barrier: float | None,
        reset_s: Literal["never", "each_outer"],
        eval_with: Literal["p", "s", "both"],
        upper_rows: float | None,
        step_counting: StepCounting,
        total_steps: int,
        dropout: bool,
        autocast: str | None,
        max_grad_norm: float | None,
    ) -> None:
        for key, rate in (("lr", lr), ("lr_p", lr_p), ("lr_s", lr_s), ("lambda_", lambda_)):
            check_not_negative(key, rate)
        for key, number in (("barrier", barrier), ("max_grad_norm", max_grad_norm)):
            if number is not None:
                check_positive(key, number)
        check_no_fp16(autocast)
        if eval_with not in (*SETS, "both"):
            raise bad_value("eval_with", eval_with, "p, s or both")
        if reset_s not in ("never", "each_outer"):
            raise bad_value("reset_s", reset_s, "never or each_outer")
        self.coupled = bool(lambda_) or barrier is not None
        self.schedule = BilevelSchedule(inner_steps, step_counting, total_steps)
        if not inner_steps and (self.coupled or eval_with != "p"):
            allowed = "a whole number >= 1; 0 with lambda_=0, barrier=null and eval_with=p"
            raise bad_value("inner_steps", inner_steps, allowed)
        options = BackboneOptions(directions, rank, nu, eps, fd, upper)
        self.needs = replace(
            BilevelZofo.needs,
            directions=directions,
            dropout=dropout,
            steps=self.schedule.steps,
            batch=Stream(rows=lower_rows(upper_rows)),
            streams={UPPER: Stream(rows=upper_rows_of(upper_rows))},
        )
        self.engine, self.sets = engine, ValueSets(engine.extras)
        self.theta = Backbone(engine, draws, options)
        self.rates = Rates(lr, lr_p, lr_s)
        self.lr = self.rates.first
        self.lambda_, self.barrier = lambda_, barrier
        self.reset_s, self.max_grad_norm = reset_s, max_grad_norm
        self.views = SETS if inner_steps else SETS[:1]
        self.tested = self.views if eval_with == "both" else (eval_with,)
        self.adam_p, self.adam_s = (adam_over(self.sets.parameters) for _ in SETS)
        # Without dropout, (2) and (3) compute the same losses at theta.
        self.reuses_losses = not (dropout and has_dropout(engine.model))
        self.t = 0  # steps, also those that were skipped
        self.k = 0  # upper steps

    def view(self, name: str) -> None:
        """Put p or s into the adapter."""
        self.sets.show(SETS.index(name))

    def step(self, score: Score) -> Report:
        """Make a lower or an upper step.

        Raises:
            NonFiniteLossError: a loss or a gradient is not finite; nothing has changed.
        """
        self.t += 1
        if self.schedule.is_upper(self.t):
            return self._upper(score)
        return self._lower(score)

    def _lower(self, score: Score) -> Report:
        """Equation (1): one forward and one backward pass over lower rows."""
        adapter = self.sets.parameters
        if self.reset_s == "each_outer" and self.schedule.begins_cycle(self.t):
            with self.sets.showing(P):
                self.sets.overwrite_other()
            self.adam_s.state.clear()
        with self.sets.showing(S):
            loss, g = gradients_of(score, self.engine, adapter)
            rate = self.rates.s(self.lr)
            norm = adam_step(self.adam_s, adapter, g, rate, self.max_grad_norm)
        return Report(loss, forwards=1, backwards=1, scalars={"grad_norm": norm})

    def _upper(self, score: Score) -> Report:
        """Equations (2) to (5). The step's own batch is B_p, and that of ``upper`` is B_f."""
        k, self.k = self.k, self.k + 1
        upper, adapter, rest = score.on(UPPER), self.sets.parameters, self.sets.shown
        with self.sets.showing(P):
            a, grad_f = gradients_of(upper, self.engine, adapter)  # (2)
            b, grad_q = gradients_of(score, self.engine, adapter) if self.coupled else (None, {})
        known = (a, b, None) if self.reuses_losses else (None, None, None)
        terms = [self._term(upper, P), self._term(score, P), self._term(score, S)]
        z = self.theta.direction(k)
        try:
            count = 3 if self.coupled else 1
            slopes, here = self.theta.slopes(z, terms[:count], known[:count])
        finally:
            self.sets.show(rest)
        c_f, c_q = slopes[0], slopes[1] - slopes[2] if self.coupled else 0.0
        lambda_ = self._lambda(c_f, c_q, grad_f, grad_q)
        c = c_f + lambda_ * c_q  # (3)
        g = (
            {name: x.add(grad_q[name], alpha=lambda_) for name, x in grad_f.items()}
            if self.coupled
            else grad_f
        )
        with self.sets.showing(P):
            adam_step(self.adam_p, adapter, g, self.rates.p(self.lr))  # (4)
        self.theta.move(z, c, self.rates.theta(self.lr))
        values = {"upper_loss": here[0], "projected_grad": c}
        if self.coupled:
            gap = {"lower_loss_p": here[1], "lower_loss_s": here[2], "gap": here[1] - here[2]}
            values |= gap | {"lambda": lambda_}
        events = [Event("upper", values)]
        return Report(here[0], score.forwards, score.backwards, scalars=values, events=events)

    def _term(self, batch: Score, number: int) -> Term:
        """Return the mean loss of a batch with p or s in the adapter."""
        return Term(batch, lambda: self.sets.show(number))

    def _lambda(self, c_f: float, c_q: float, grad_f: Gradients, grad_q: Gradients) -> float:
        """Return lambda: the given one, or equation (5) with the slopes along z for theta."""
        if self.barrier is None:
            return self.lambda_
        square = c_q**2 + dot(grad_q, grad_q)
        product = c_f * c_q + dot(grad_f, grad_q)
        return max((self.barrier * square - product) / square, 0.0) if square else 0.0


def lower_rows(upper_rows: float | None) -> tuple[float, float]:
    """Return the shares between which the lower problem's rows are.

    Raises:
        BadValueError: ``upper_rows`` is not a share.
    """
    if upper_rows is None:
        return 0.0, 1.0
    if not 0 < upper_rows < 1:
        raise bad_value("upper_rows", upper_rows, "a number between 0 and 1, or null")
    return 0.0, 1 - upper_rows


def upper_rows_of(upper_rows: float | None) -> tuple[float, float]:
    """Return the shares between which the upper problem's rows are."""
    return (0.0, 1.0) if upper_rows is None else (1 - upper_rows, 1.0)
