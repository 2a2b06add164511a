"""IST: in each step only some layers are trained; those whose suppression hurts are chosen more.

Source: Yao et al., "Layer-wise importance matters: less memory for better performance in
parameter-efficient fine-tuning of large language models", arXiv 2410.11772, and its released code
(ist.py:36-182). Each of the L blocks has a score I_i, which starts at 0; p_i = sigmoid(I_i).

    (1)  train the modules of floor(0.25 L) blocks, drawn in proportion to sigmoid(-I_i), and leave
         those of the others as they are, in the function                                every step
    (2)  draw K different sets S_k of floor(0.5 L) blocks in proportion to p_i, multiply the factor
         s of their modules by beta, and take the loss L_k of one batch               every T steps
    (3)  R_k = exp(-L_k) - the mean of all exp(-L_k)
    (4)  I_i <- I_i + eta sum_{k: i in S_k} R_k p_i (1 - p_i)

The released code calls I importance. It grows if the loss is low while the block is suppressed, so
that (1) trains those blocks more that are missed.

Losses of (2) are recorded like all others: a zeroth-order run stays replayable.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import comb, exp
from statistics import fmean

import torch
from torch import Tensor

from lozo_bench.allocation.base import Length
from lozo_bench.allocation.inner import Around
from lozo_bench.engine.protocol import Engine
from lozo_bench.engine.subspace import NOWHERE
from lozo_bench.errors import UserError, bad_value
from lozo_bench.optimizers.base import (
    Event,
    Needs,
    Optimizer,
    Report,
    Score,
    Stream,
    check_count,
    check_positive,
)
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import Tuned, Tuning
from lozo_bench.tuning.gates import Gates

_STREAM = "importance"
_TRIES = 100  # so many sets are drawn at most to find different ones


class Ist:
    """Trains a sample of the layers in each step.

    Args:
        train: which share of the blocks is trained in a step.
        suppress: which share of the blocks is suppressed at once.
        beta: the factor of their modules.
        every: T, how many steps lie between two rounds of losses.
        sets: K.
        eta: step size of the scores.
        rows: how many training rows these losses are taken on.
    """

    def __init__(
        self,
        *,
        train: float,
        suppress: float,
        beta: float,
        every: int,
        sets: int,
        eta: float,
        rows: int,
    ) -> None:
        for key, share in (("train", train), ("suppress", suppress)):
            if not 0 < share <= 1:
                raise bad_value(key, share, "a number above 0 and up to 1")
        if not 0 <= beta < 1:
            raise bad_value("beta", beta, "a number from 0 to below 1")
        check_count("every", every)
        if sets < 2:
            raise bad_value(
                "sets", sets, "a whole number >= 2: losses are compared with their mean"
            )
        check_positive("eta", eta)
        check_count("rows", rows)
        self.train, self.suppress, self.beta = train, suppress, beta
        self.every, self.sets, self.eta, self.rows = every, sets, eta, rows

    def needs(self, inner: Needs, tuning: Tuning) -> Needs:
        """See `Allocation`."""
        if not getattr(tuning, "gated", False):
            raise UserError(
                f"allocation: IST chooses among LoRA modules, and tuning={type(tuning).__name__} "
                "has none that can rest; allowed: tuning=gated_lora or shortcuts"
            )
        if _STREAM in inner.streams:
            raise UserError(f"optimizer: its stream {_STREAM!r} has the name of the allocation's")
        return self._with_losses(inner)

    def suppressed_of(self, blocks: int) -> int:
        """Return how many of so many blocks are suppressed at once."""
        return max(1, int(self.suppress * blocks))

    def _with_losses(self, inner: Needs) -> Needs:
        return replace(inner, streams={**inner.streams, _STREAM: Stream(batch_size=self.rows)})

    def around(
        self, optimizer: Optimizer, engine: Engine, tuned: Tuned, draws: Draws, length: Length
    ) -> Optimizer:
        """See `Allocation`."""
        assert tuned.gates is not None, "`needs` refuses a tuning without gates"
        blocks: dict[int, list[int]] = {}
        for i, module in enumerate(tuned.gates.modules):
            blocks.setdefault(module.layer, []).append(i)
        different = comb(len(blocks), self.suppressed_of(len(blocks)))
        if different < self.sets:
            raise bad_value(
                "allocation.sets",
                self.sets,
                f"up to {different}, as many as there are ways to suppress "
                f"{self.suppressed_of(len(blocks))} of {len(blocks)} blocks",
            )
        setup = Setup(self, tuned.gates, draws, blocks)
        return SampledLayers(optimizer, engine, setup, self._with_losses(optimizer.needs))


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """What the sampling of layers is made of.

    Args:
        options: what the config says.
        gates: make modules rest.
        draws: source of the samples.
        blocks: the numbers of the modules of each block.
    """

    options: Ist
    gates: Gates
    draws: Draws
    blocks: Mapping[int, list[int]]


class SampledLayers(Around):
    """An optimizer whose steps move the modules of a sample of the blocks.

    Args:
        optimizer: makes the steps.
        engine: holds the weights.
        setup: how the blocks are sampled.
        needs: of the optimizer and of the losses that the scores are computed from.
    """

    def __init__(self, optimizer: Optimizer, engine: Engine, setup: Setup, needs: Needs) -> None:
        super().__init__(optimizer, engine, needs)
        self.setup = setup
        self.importance = torch.zeros(len(setup.blocks), dtype=torch.float64)  # I
        self.t = 0

    def step(self, score: Score) -> Report:
        """Make a step of the wrapped optimizer for a sample of the blocks."""
        t, self.t = self.t, self.t + 1
        setup, options, events = self.setup, self.setup.options, []
        if t and t % options.every == 0:  # before the first step, all s B A are 0
            self.importance = self._updated(score, t)
            values = " ".join(f"{x:.4g}" for x in self.importance.tolist())
            events = [Event("importance", {"scores": values})]
        count = max(1, int(options.train * len(setup.blocks)))
        chosen = sample((-self.importance).sigmoid(), count, setup.draws, "ist/train", t)
        with setup.gates.moving(self._modules(chosen)):
            report = self.inner.step(score)
        return replace(report, events=[*events, *report.events])

    def _updated(self, score: Score, t: int) -> Tensor:
        """Return the scores I after equations (2) to (4)."""
        options, batch, p = self.setup.options, score.on(_STREAM), self.importance.sigmoid()
        sets = self._different_sets(p, t)
        gains = []
        for each in sets:
            with suppressed(self.setup.gates, self._modules(each), options.beta):
                gains.append(exp(-batch(NOWHERE, [0.0])[0]))
        importance = self.importance.clone()
        for each, gain in zip(sets, gains, strict=True):
            reward = gain - fmean(gains)
            importance[each] += options.eta * reward * (p * (1 - p))[each]
        return importance

    def _different_sets(self, p: Tensor, t: int) -> list[list[int]]:
        """Draw the sets S_k; fewer if p leaves next to no choice."""
        count, found = self.setup.options.suppressed_of(len(p)), list[list[int]]()
        for i in range(_TRIES):
            drawn = sample(p, count, self.setup.draws, "ist/suppress", t * _TRIES + i)
            if drawn not in found:
                found.append(drawn)
            if len(found) == self.setup.options.sets:
                break
        return found

    def _modules(self, blocks: Collection[int]) -> set[int]:
        members = list(self.setup.blocks.values())
        return {number for block in blocks for number in members[block]}


def sample(weights: Tensor, count: int, draws: Draws, role: str, step: int) -> list[int]:
    """Draw ``count`` different indices one after another, each in proportion to its weight.

    An index with the weight w is drawn at an exponential time of the rate w; the first ones count.
    """
    u = draws.uniform_range(role, step, "layers", 0, len(weights)).double()
    times = -(u + 2.0**-25).log() / weights
    chosen: list[int] = times.argsort(stable=True)[:count].sort().values.tolist()
    return chosen


@contextmanager
def suppressed(gates: Gates, numbers: Collection[int], beta: float) -> Iterator[None]:
    """Inside this context, the factors s of these modules are multiplied by beta."""
    factors = {i: gates.modules[i].peft.scaling for i in numbers}
    before = {i: dict(scaling) for i, scaling in factors.items()}
    for scaling in factors.values():
        scaling["default"] *= beta
    try:
        yield
    finally:
        for i, scaling in factors.items():
            scaling.update(before[i])
