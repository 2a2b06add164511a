"""From the scores of modules to what is on: the best ones within a budget.

Published (dyrealloc_callback.py:367-665), with p the share of the budget, 0.25:

    LoRA only:   the best floor(p N_LoRA)
    separated:   the best floor(p N_LoRA) of LoRA, and the best round(p N_shortcuts) shortcuts
    combined:    the best floor(p N_LoRA) + round(p N_shortcuts) of all together

Modules whose scores are equal are on in a random order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor
from typing import Literal

import torch
from torch import Tensor

from lozo_bench.errors import UserError, bad_value
from lozo_bench.optimizers.base import check_count
from lozo_bench.tuning.low_rank_modules import LowRankModule

Mode = Literal["combined", "separated"]
Allocate = Literal["gates", "rank"]
Modules = Sequence[LowRankModule]
Numbers = list[int]  # of modules


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is on, and how it is divided.

    Args:
        share: the share of the modules that is on; None: ``parameters`` is given.
        parameters: how many parameters are on, at most; None: ``share`` is given.
        mode: ``combined``: LoRA and shortcuts compete; ``separated``: each has its own share.
        allocate: ``gates``: a module is on with its whole rank, or off. ``rank``: each module has
            a rank from 0 to its own, in proportion to its score, with as many parameters in all.

    Raises:
        BadValueError: the share is not 0 < share <= 1, the number is below 1, or not exactly one
            of both is given.
    """

    share: float | None
    parameters: int | None
    mode: Mode
    allocate: Allocate

    def __post_init__(self) -> None:
        if (self.share is None) is (self.parameters is None):
            allowed = "null, or budget=null: exactly one of both is given"
            if self.parameters is None:
                allowed = "a number of parameters, as budget is null"
            raise bad_value("budget_parameters", self.parameters, allowed)
        if self.share is not None and not 0 < self.share <= 1:
            allowed = "a number > 0 and <= 1: the share of the modules that is on"
            raise bad_value("budget", self.share, allowed)
        if self.parameters is not None:
            check_count("budget_parameters", self.parameters)

    def ranks(self, modules: Modules, scores: Tensor, ties: Tensor) -> Tensor:
        """Return how many components of each module are on: int64 [N].

        Args:
            modules: the modules.
            scores: of each module, float64 [N]; more is better.
            ties: of modules whose scores are equal, the one with the smaller number comes first.
        """
        ranks = [0] * len(modules)
        order = sorted(range(len(modules)), key=lambda i: (-float(scores[i]), float(ties[i])))
        place = {i: p for p, i in enumerate(order)}
        for numbers in self._parts(modules):
            mine = sorted(numbers, key=place.__getitem__)
            if self.allocate == "rank":
                _by_rank(ranks, modules, mine, scores, self._parameters(modules, numbers))
            elif self.share is None:
                _while_they_fit(ranks, modules, mine, self._parameters(modules, numbers))
            else:
                for i in mine[: self._count(modules, numbers)]:
                    ranks[i] = modules[i].rank
        return torch.tensor(ranks, dtype=torch.int64)

    def check(self, modules: Modules) -> None:
        """Refuse a budget that turns nothing on.

        Raises:
            UserError: it does.
        """
        if any(self.ranks(modules, torch.ones(len(modules)), torch.zeros(len(modules)))):
            return
        if self.share is None:
            least = min(m.size // (m.rank if self.allocate == "rank" else 1) for m in modules)
            given, allowed = self.parameters, f"at least {least}, those of the smallest module"
            raise bad_value("allocation.budget_parameters", given, allowed)
        raise UserError(
            f"allocation.budget: given {self.share}, which is none of {len(modules)} modules; "
            f"allowed: at least {1 / len(modules):.3g}"
        )

    def _parts(self, modules: Modules) -> Iterator[Numbers]:
        """Yield the numbers of the modules that compete with each other."""
        if self.mode == "combined":
            yield list(range(len(modules)))
        else:
            yield from _kinds(modules)

    def _count(self, modules: Modules, numbers: Numbers) -> int:
        """Return how many of these modules are on."""
        assert self.share is not None
        shortcuts = sum(modules[i].is_shortcut for i in numbers)
        return _floor(self.share * (len(numbers) - shortcuts)) + round(self.share * shortcuts)

    def _parameters(self, modules: Modules, numbers: Numbers) -> int:
        """Return how many parameters of these modules are on, at most."""
        sizes = [module.size for module in modules]
        if self.parameters is not None:
            return self.parameters * sum(sizes[i] for i in numbers) // sum(sizes)
        total, competing = 0, set(numbers)
        for kind in _kinds(modules):
            if mine := [sizes[i] for i in kind if i in competing]:
                total += self._count(modules, kind) * sum(mine) // len(mine)
        return total


def _kinds(modules: Modules) -> tuple[Numbers, Numbers]:
    """Return the numbers of LoRA modules, and those of shortcuts."""
    lora = [i for i, module in enumerate(modules) if not module.is_shortcut]
    return lora, [i for i, module in enumerate(modules) if module.is_shortcut]


def _while_they_fit(ranks: list[int], modules: Modules, order: Numbers, left: int) -> None:
    """Turn on the best modules that fit into what is left of the budget."""
    for i in order:
        if modules[i].size <= left:
            ranks[i], left = modules[i].rank, left - modules[i].size


def _by_rank(ranks: list[int], modules: Modules, order: Numbers, scores: Tensor, left: int) -> None:
    """Give each module a rank in proportion to its score, up to its own rank.

    The next component goes to the module with the largest score / (rank so far + 1), which is
    D'Hondt's method of dividing the seats of a parliament.
    """
    costs = {i: modules[i].size // modules[i].rank for i in order}
    worth = {i: max(0.0, float(scores[i])) for i in order}
    while open_ := [i for i in order if ranks[i] < modules[i].rank and costs[i] <= left]:
        # `max` takes the first of equal ones, and ``order`` is that of scores and ties.
        best = max(open_, key=lambda i: worth[i] / (ranks[i] + 1))
        ranks[best], left = ranks[best] + 1, left - costs[best]


def _floor(x: float) -> int:
    """Return the largest whole number <= x, where 0.29 * 100 counts as 29."""
    return floor(x + 1e-9)
