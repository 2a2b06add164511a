"""An optimizer whose low-rank modules are chosen, again and again, by their scores.

At step t of an epoch of E steps, with N = ceil(every * E):

    (1)  if t mod N = 0:  turn all modules on, score them, and leave the best ones on   allocate
    (2)  make a step of the wrapped optimizer                                          step

A module that is off is not in the function and does not move; it keeps its weights and moments,
and is scored with them the next time. Scores are taken on a fixed set of training rows, or, with
``score=online``, from the gradients of the steps since the last allocation.

Source: Zhang et al., "Unlocking the Global Synergies in Low-Rank Adapters", arXiv 2406.14956;
released code, pl_callbacks/dyrealloc_callback.py:276-707.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from lozo_bench.allocation.base import Length, Proxy
from lozo_bench.allocation.budget import Allocate, Budget, Mode
from lozo_bench.allocation.by_gradient import ByGradient
from lozo_bench.allocation.inner import Around
from lozo_bench.allocation.normalise import Normalise, normalised
from lozo_bench.allocation.online import Online
from lozo_bench.allocation.schedule import Timing, When
from lozo_bench.config.build import build
from lozo_bench.engine.finite import NonFiniteLossError
from lozo_bench.engine.protocol import Engine
from lozo_bench.errors import Stopped, UserError, bad_value
from lozo_bench.optimizers.base import Event, Needs, Optimizer, Report, Score, Stream, check_count
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import Tuned, Tuning
from lozo_bench.tuning.gates import Gates

STREAM = "allocation"


class ByScore:
    """Turns on the low-rank modules with the best scores.

    Args:
        proxy: scores the modules: ``_target_`` and its options.
        when: ``static``: once, before the first step; ``dynamic``: again and again.
        every: the interval, as a share of an epoch.
        mode: ``combined``: LoRA modules and shortcuts compete; ``separated``: each has its own
            share.
        budget: the share of the modules that is on; None: ``budget_parameters`` is given.
        budget_parameters: how many parameters of them are on, at most; None: ``budget`` is given.
        allocate: ``gates``: each module is on or off; ``rank``: each has a rank of its own.
        normalise: ``none``: raw scores, as published; ``rank``: divided by s sqrt(r); ``group``:
            divided by the mean score of the same projection in all blocks.
        score: ``separate``: on scoring batches; ``online``: from the gradients of the steps since
            the last allocation. The first set is drawn then.
        batches: how many scoring batches.
    """

    def __init__(
        self,
        *,
        proxy: dict[str, Any],
        when: When,
        every: float,
        mode: Mode,
        budget: float | None,
        budget_parameters: int | None,
        allocate: Allocate,
        normalise: Normalise,
        score: Literal["separate", "online"],
        batches: int,
    ) -> None:
        check_count("batches", batches)
        self.proxy: Proxy = build(proxy, "proxy")
        self.timing = Timing(when, every)
        self.budget = Budget(budget, budget_parameters, mode, allocate)
        self.normalise, self.online = normalise, score == "online"
        if self.online and not isinstance(self.proxy, ByGradient):
            name = type(self.proxy).__name__
            raise bad_value("score", score, f"separate with {name}, which needs passes of its own")
        if self.online and when == "static":
            allowed = "dynamic with score=online: before the first step there are no gradients"
            raise bad_value("when", when, allowed)
        limit = self.proxy.batches
        self.batches = 0 if self.online else batches if limit is None else min(batches, limit)

    def needs(self, inner: Needs, tuning: Tuning) -> Needs:
        """See `Allocation`."""
        if not getattr(tuning, "gated", False):
            raise UserError(
                f"allocation: it turns modules on and off, and tuning={type(tuning).__name__} has "
                "none; allowed: tuning=gated_lora or shortcuts, or allocation=none"
            )
        if self.online and not inner.updates_by_gradient:
            allowed = "separate, as this optimizer differentiates nothing that could be reused"
            raise bad_value("allocation.score", "online", allowed)
        if self.budget.allocate == "rank" and not inner.updates_by_gradient:
            allowed = "gates, as this optimizer would also move the components that are off"
            raise bad_value("allocation.allocate", "rank", allowed)
        if STREAM in inner.streams:
            raise UserError(f"optimizer: its stream {STREAM!r} has the name of the allocation's")
        return self._with_scoring(inner)

    def _with_scoring(self, inner: Needs) -> Needs:
        streams = {STREAM: Stream(limit=self.batches)} if self.batches else {}
        return replace(
            inner,
            gradient=inner.gradient or self.proxy.gradient,
            replayable=inner.replayable and not self.proxy.gradient,
            streams={**inner.streams, **streams},
        )

    def around(
        self, optimizer: Optimizer, engine: Engine, tuned: Tuned, draws: Draws, length: Length
    ) -> Optimizer:
        """See `Allocation`."""
        assert tuned.gates is not None, "`needs` refuses a tuning without gates"
        if self.proxy.gradient and getattr(optimizer, "scaled", False):
            allowed = "null or bf16 with this allocation, whose gradients fp16 would round to 0"
            raise bad_value("model.autocast", "fp16", allowed)
        self.budget.check(tuned.gates.modules)
        batches = min(self.batches, length.epochs.get(STREAM, 0))
        setup = Setup(self, tuned.gates, draws, length.epoch, batches)
        return Allocated(optimizer, engine, setup, self._with_scoring(optimizer.needs))


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """What an allocation is made of.

    Args:
        options: what the config says.
        gates: turn the modules on and off.
        draws: source of random numbers.
        epoch: the steps of an epoch.
        batches: how many scoring batches there are.
    """

    options: ByScore
    gates: Gates
    draws: Draws
    epoch: int
    batches: int


class Allocated(Around):
    """An optimizer whose modules are allocated before some of its steps.

    Args:
        optimizer: makes the steps.
        engine: holds the weights.
        setup: how modules are allocated.
        needs: of the optimizer and of the allocation.
    """

    def __init__(self, optimizer: Optimizer, engine: Engine, setup: Setup, needs: Needs) -> None:
        super().__init__(optimizer, engine, needs)
        self.setup = setup
        self.online: Online | None = None
        if setup.options.online and isinstance(proxy := setup.options.proxy, ByGradient):
            self.online = Online(setup.gates.modules, proxy)
        self.t = 0  # steps, also those that were skipped
        self.number = 0  # allocations
        self.pending = False  # an allocation is due

    def step(self, score: Score) -> Report:
        """Allocate, if it is time to, and make a step of the wrapped optimizer.

        A step that is skipped leaves the modules as they were; the allocation is then made before
        the next step.
        """
        setup, before = self.setup, self.setup.gates.ranks.clone()
        self.pending |= setup.options.timing.is_due(self.t, setup.epoch)
        self.t += 1
        try:
            events = [self._allocate(score)] if self.pending else []
            watching = nullcontext() if self.online is None else self.online.watching(self.pending)
            with watching:
                report = self.inner.step(score)
        except (NonFiniteLossError, Stopped, UserError):
            if not torch.equal(before, setup.gates.ranks):
                setup.gates.set(before)
            raise
        self.number += self.pending
        self.pending = False
        return replace(report, events=[*events, *report.events])

    def _allocate(self, score: Score) -> Event:
        """Score the modules, turn the best ones on, and describe it."""
        gates, options = self.setup.gates, self.setup.options
        modules = gates.modules
        scores = normalised(options.normalise, modules, self._scores(score))
        gates.set(self._ranks(scores))
        values: dict[str, float | str] = {
            "enabled": "".join(str(int(on)) for on in gates.on),
            "scores": " ".join(f"{x:.4g}" for x in scores.tolist()),
            "active_parameters": gates.active_parameters,
        }
        if options.budget.allocate == "rank":
            values["ranks"] = " ".join(map(str, gates.ranks.tolist()))
        if self.number == 0:
            values["modules"] = " ".join(module.name for module in modules)
            values["groups"] = " ".join(module.group for module in modules)
            values["layers"] = " ".join(str(module.layer) for module in modules)
        return Event("allocation", values)

    def _ranks(self, scores: Tensor) -> Tensor:
        """Return how many components of each module are to be on, int64 [N]."""
        setup, modules = self.setup, self.setup.gates.modules
        ties = setup.draws.uniform_range("allocation", self.number, "ties", 0, len(modules))
        return setup.options.budget.ranks(modules, scores, ties)

    def _scores(self, score: Score) -> Tensor:
        """Return the score of each module.

        Raises:
            UserError: one of them is not finite.
        """
        setup, modules = self.setup, self.setup.gates.modules
        proxy = setup.options.proxy
        if self.online is None:
            batches = [score.on(STREAM) for _ in range(setup.batches)]
            with setup.gates.all_on():
                scores = proxy.scores(modules, batches, setup.draws, self.number)
        elif self.number == 0:
            scores = torch.zeros(len(modules), dtype=torch.float64)  # no step was made so far
        else:
            scores = self.online.scores()
        for module, found in zip(modules, scores.tolist(), strict=True):
            if not -float("inf") < found < float("inf"):
                raise UserError(
                    f"allocation: the score of {module.name} is {found} with "
                    f"{type(proxy).__name__}; what to do: a smaller optimizer.lr, or "
                    "model.dtype=fp32"
                )
        return scores
