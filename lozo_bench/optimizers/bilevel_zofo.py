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

Of several tasks i, each has copies p_i and s_i and rows of its own. Each outer iteration takes n
of them, drawn without replacement: (1) to (3) are those of each task, with a z of its own, and (4)
adds up their steps of theta. That is the paper's meta-training.

With lambda = 0 and T = 0 it is hybrid fine-tuning: theta and p at once, on one problem. With
``barrier``, lambda is BOME's (Ye et al., arXiv 2209.08709), from the same estimates: with f = F and
q = G(theta, p) - G(theta, s), and inner products over (theta, p),

    (5)  lambda = max( ( barrier |grad q|^2 - <grad f, grad q> ) / |grad q|^2, 0 )

The released code keeps a gradient and two moments of the size of theta (``upper=adam``), and gives
theta and p one learning rate. It takes b - c = G(theta, p) - G(theta, s) from rounded means; here
differences are taken in float64 from the losses of the examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from lozo_bench.engine.together import Term
from lozo_bench.engine.value_sets import ValueSets
from lozo_bench.errors import UserError, bad_value
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
from lozo_bench.optimizers.backbone_steps import Backbone, BackboneOptions, Direction
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
from lozo_bench.optimizers.bilevel_problems import (
    LOWER,
    UPPER,
    Problem,
    lower_rows,
    problems_of,
    upper_rows_of,
)
from lozo_bench.optimizers.bilevel_schedule import BilevelSchedule, StepCounting
from lozo_bench.optimizers.task_draws import TaskDraws
from lozo_bench.randomness.draws import Draws

_NEVER_MOVES = Event(
    "theta_never_moves", {"why": "the run has no upper step: its steps are too few for inner_steps"}
)


@dataclass(frozen=True)
class Estimate:
    """What an upper step found out about a task: the direction z, c, the gradient of p, numbers."""

    z: Direction
    c: float
    g: Gradients
    values: Mapping[str, float | str]


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
        nu: number of estimates for which V is kept: one for each task of an upper step.
        upper: ``sgd``, or ``adam``, which keeps two moments of the size of theta.
        barrier: eta of BOME's lambda; None: lambda is constant.
        reset_s: ``each_outer``: before its T lower steps, s is set to p.
        eval_with: which copy is evaluated and tested; ``both``: the one that is better on dev. Of
            several tasks, theta is, with an adapter that is not trained.
        upper_rows: the share of the training rows that is the upper problem's; the rest is the
            lower one's. None: both have all rows.
        tasks: the names of the tasks, each of which is a problem; none: all rows are of one.
        tasks_per_step: n; None: all tasks.
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
        tasks: list[str],
        tasks_per_step: int | None,
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
        if eval_with not in ("p", "s", "both"):
            raise bad_value("eval_with", eval_with, "p, s or both")
        if reset_s not in ("never", "each_outer"):
            raise bad_value("reset_s", reset_s, "never or each_outer")
        self.coupled = bool(lambda_) or barrier is not None
        self.schedule = BilevelSchedule(inner_steps, step_counting, total_steps)
        if not inner_steps and (self.coupled or eval_with != "p"):
            allowed = "a whole number >= 1; 0 with lambda_=0, barrier=null and eval_with=p"
            raise bad_value("inner_steps", inner_steps, allowed)
        options = BackboneOptions(directions, rank, nu, eps, fd, upper)
        self.problems = problems_of(tasks)
        several = tuple(task for task in self.problems if task)
        count = max(1, len(several)) if tasks_per_step is None else tasks_per_step
        self.drawn = TaskDraws(draws, several, count)
        rows = lower_rows(upper_rows), upper_rows_of(upper_rows)
        self.needs = replace(
            BilevelZofo.needs,
            directions=directions,
            dropout=dropout,
            steps=self.schedule.steps,
            batch=Stream(rows=rows[0]),
            streams=self.drawn.streams(UPPER, rows[1])
            | (self.drawn.streams(LOWER, rows[0]) if several else {}),
        )
        self.engine = engine
        self.sets = ValueSets(engine.extras)
        wanted = 1 + 2 * len(several) if several else 2
        if len(self.sets) not in (0, wanted):  # without weights there are none
            given = "none" if not several else ", ".join(several)
            raise UserError(
                f"optimizer.tasks: given {given}; allowed: the tasks of tuning.tasks, for which "
                f"there are {len(self.sets)} sets of values instead of {wanted}"
            )
        self.theta = Backbone(engine, draws, options)
        self.rates = Rates(lr, lr_p, lr_s)
        self.lr = self.rates.first
        self.lambda_, self.barrier = lambda_, barrier
        self.reset_s, self.max_grad_norm = reset_s, max_grad_norm
        # Of several tasks, theta is evaluated with an adapter that is not trained.
        self.views: tuple[str, ...] = ("theta",)
        if not several:
            self.views = ("p", "s") if inner_steps else ("p",)
        self.tested = self.views if several or eval_with == "both" else (eval_with,)
        self.adam_p = {task: adam_over(self.sets.parameters) for task in self.problems}
        self.adam_s = {task: adam_over(self.sets.parameters) for task in self.problems}
        # Without dropout, (2) and (3) compute the same losses at theta.
        self.reuses_losses = not (dropout and has_dropout(engine.model))
        self.t = 0  # steps, also those that were skipped
        self.k = 0  # upper steps

    def view(self, name: str) -> None:
        """Put p, s or the adapter that is not trained into the model."""
        self.sets.show(("p", "s").index(name) if name != "theta" else 0)

    def step(self, score: Score) -> Report:
        """Make a lower or an upper step.

        Raises:
            NonFiniteLossError: a loss or a gradient is not finite; nothing has changed.
        """
        self.t += 1
        problems = [self.problems[task] for task in self.drawn.of(self.k)]
        if self.schedule.is_upper(self.t):
            return self._upper(score, problems)
        return self._lower(score, problems)

    def _lower(self, score: Score, problems: Sequence[Problem]) -> Report:
        """Equation (1): for each task, one forward and one backward pass over lower rows."""
        adapter, found = self.sets.parameters, []
        for of in problems:
            if self.reset_s == "each_outer" and self.schedule.begins_cycle(self.t):
                self.sets.copy(of.p, of.s)
                self.adam_s[of.task].state.clear()
            with self.sets.showing(of.s):
                found.append(gradients_of(of.lower(score), self.engine, adapter))
        norms, rate = [], self.rates.s(self.lr)
        for of, (_, g) in zip(problems, found, strict=True):
            with self.sets.showing(of.s):
                adam = self.adam_s[of.task]
                norms.append(adam_step(adam, adapter, g, rate, self.max_grad_norm))
        scalars = {"grad_norm": fmean(norms)}
        loss = fmean(loss for loss, _ in found)
        events = [] if self.t > 1 or self.schedule.upper_steps else [_NEVER_MOVES]
        return Report(loss, score.forwards, score.backwards, scalars, events)

    def _upper(self, score: Score, problems: Sequence[Problem]) -> Report:
        """Equations (2) to (5)."""
        first, rest = self.k * len(problems), self.sets.shown
        self.k += 1
        try:
            found = [
                self._estimate(self.theta.direction(first + j), of, score)
                for j, of in enumerate(problems)
            ]
        finally:
            self.sets.show(rest)
        for of, estimate in zip(problems, found, strict=True):  # (4)
            with self.sets.showing(of.p):
                adam, rate = self.adam_p[of.task], self.rates.p(self.lr)
                adam_step(adam, self.sets.parameters, estimate.g, rate)
        # In place, the weights are still on their way along the last direction.
        for estimate in reversed(found):
            self.theta.move(estimate.z, estimate.c, self.rates.theta(self.lr))
        events = [Event("upper", estimate.values) for estimate in found]
        numbers = [key for key, x in found[0].values.items() if isinstance(x, float)]
        scalars = {key: fmean(float(each.values[key]) for each in found) for key in numbers}
        loss = scalars["upper_loss"]
        return Report(loss, score.forwards, score.backwards, scalars=scalars, events=events)

    def _estimate(self, z: Direction, problem: Problem, score: Score) -> Estimate:
        """Return the gradient of p and the slope of H along z, equations (2), (3) and (5).

        Without a name of a task, the step's own batch is B_p, and that of ``upper`` is B_f.
        """
        adapter, upper = self.sets.parameters, problem.upper(score)
        lower = problem.lower(score) if self.coupled else score
        with self.sets.showing(problem.p):
            a, grad_f = gradients_of(upper, self.engine, adapter)  # (2)
            b, grad_q = gradients_of(lower, self.engine, adapter) if self.coupled else (None, {})
        terms = [self._term(upper, problem.p)]
        known: list[float | None] = [a]
        if self.coupled:
            terms += [self._term(lower, problem.p), self._term(lower, problem.s)]
            known += [b, None]
        if not self.reuses_losses:
            known = [None] * len(terms)
        slopes, here = self.theta.slopes(z, terms, known)
        task: dict[str, float | str] = {"task": problem.task} if problem.task else {}
        if not self.coupled:
            values = {"upper_loss": here[0], "projected_grad": slopes[0]}
            return Estimate(z, slopes[0], grad_f, task | values)
        c_f, c_q = slopes[0], slopes[1] - slopes[2]
        lambda_ = self._lambda(c_f, c_q, grad_f, grad_q)
        c = c_f + lambda_ * c_q  # (3)
        g = {name: x.add(grad_q[name], alpha=lambda_) for name, x in grad_f.items()}
        values = {
            "upper_loss": here[0],
            "projected_grad": c,
            "lower_loss_p": here[1],
            "lower_loss_s": here[2],
            "gap": here[1] - here[2],
            "lambda": lambda_,
        }
        return Estimate(z, c, g, task | values)

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
