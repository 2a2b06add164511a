"""Scores without passes of their own: what training differentiates anyway is added up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from lozo_bench.allocation.by_gradient import ByGradient
from lozo_bench.allocation.taps import Sums, observed
from lozo_bench.tuning.low_rank_modules import LowRankModule


class Online:
    """The sums of what a proxy observes in the training steps since the last allocation.

    Modules that are off are observed too. They are observed at the function that is trained, in
    which they have no part, whereas separate scoring turns all modules on.

    Args:
        modules: what is scored.
        proxy: says what is added up.
    """

    def __init__(self, modules: Sequence[LowRankModule], proxy: ByGradient) -> None:
        self.modules, self.proxy = modules, proxy
        self.sums: Sums = {}

    @contextmanager
    def watching(self, restart: bool) -> Iterator[None]:
        """Add up the gradients in this context, unless it is left by an exception.

        Args:
            restart: whether they are the first ones after an allocation.
        """
        with observed(self.modules, self.proxy.observe) as found:
            yield
        if restart:
            self.sums = found
            return
        for i, tensors in found.items():
            if i in self.sums:
                torch._foreach_add_(self.sums[i], tensors)
            else:
                self.sums[i] = tensors

    def scores(self) -> Tensor:
        """Return the score of each module, float64 [N]."""
        return self.proxy.scores_of(self.modules, self.sums)

    def state(self) -> dict[str, Tensor]:
        """Return the sums by names such as ``3/[0]``."""
        return {f"{i}/{j}": x for i, each in self.sums.items() for j, x in enumerate(each)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what `state` returned."""
        self.sums = {}
        for name in sorted(state, key=lambda name: tuple(map(int, name.split("/")))):
            i = int(name.partition("/")[0])
            device = self.modules[i].A.device
            self.sums.setdefault(i, []).append(state[name].to(device, copy=True))
