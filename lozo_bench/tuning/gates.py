"""Gates: which low-rank modules are in the model's function, and with how many components.

A module that is off is not in the forward pass. Its weights get no gradient and no update, and
they do not decay. They and the optimizer's moments are kept, and are taken up again when the module
is back on. Setting the factor s to 0 instead would not do: a gradient of 0 moves the moments, and
the weights decay.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from lozo_bench.engine.terms import Extras
from lozo_bench.tuning.low_rank_modules import LowRankModule


class Gates:
    """Which low-rank modules are in the model's function. At the start all of them are.

    Args:
        modules: the modules, in the model's order.
        plain_when_off: whether the model with all modules off is the model without them.

    Attributes:
        ranks: int64 [N]. 0 is off, the module's rank is on; anything between: only so many of its
            first components, A[:k] and B[:, :k], are on. The factor s stays alpha / r.
    """

    def __init__(self, modules: Sequence[LowRankModule], plain_when_off: bool = True) -> None:
        self.modules, self.plain_when_off = list(modules), plain_when_off
        self.full = torch.tensor([m.rank for m in self.modules], dtype=torch.int64)
        self.ranks = self.full.clone()
        self._off: frozenset[str] = frozenset()
        self._hooks: list[RemovableHandle] = []

    @property
    def extras(self) -> Extras:
        """The gates as a part of the engine's state."""
        return Extras({"gates": self.ranks}, self.apply, lambda: self._off, self.components)

    @property
    def on(self) -> Tensor:
        """Which modules are on, at least in part: bool [N]."""
        return self.ranks > 0

    @property
    def active_parameters(self) -> int:
        """How many parameters of low-rank modules are in the function."""
        return sum(
            m.size // m.rank * k for m, k in zip(self.modules, self.ranks.tolist(), strict=True)
        )

    def is_on(self, i: int) -> bool:
        """Return whether the i-th module is on, at least in part."""
        return bool(self.ranks[i] > 0)

    def set(self, ranks: Tensor) -> None:
        """Turn modules on and off.

        Args:
            ranks: as the attribute ``ranks``; bool [N] turns whole modules on and off.

        Raises:
            ValueError: a rank is below 0 or above that of the module.
        """
        if ranks.dtype is torch.bool:
            ranks = self.full * ranks
        if ranks.shape != self.full.shape or (ranks < 0).any() or (ranks > self.full).any():
            raise ValueError(f"ranks from 0 to {self.full.tolist()} are needed: {ranks.tolist()}")
        self.ranks.copy_(ranks)
        self.apply()

    def apply(self) -> None:
        """Make the model's function that of ``ranks``."""
        self.release()
        off: set[str] = set()
        for module, rank in zip(self.modules, self.ranks.tolist(), strict=True):
            module.peft.enable_adapters(rank > 0)
            if rank == 0:
                module.A.grad = module.B.grad = None
                off |= set(module.names)
            elif rank < module.rank:
                first = module.peft.lora_A["default"]
                self._hooks.append(first.register_forward_hook(partial(_only_first, rank)))
        self._off = frozenset(off)

    def release(self) -> None:
        """Take the hooks out that modules on in part have."""
        while self._hooks:
            self._hooks.pop().remove()

    @contextmanager
    def all_on(self) -> Iterator[None]:
        """Inside this context all modules are on, for example to be scored."""
        before = self.ranks.clone()
        self.set(self.full)
        try:
            yield
        finally:
            self.set(before)

    @contextmanager
    def moving(self, numbers: Collection[int]) -> Iterator[None]:
        """Inside this context only these modules move; the others rest in the function."""
        resting = [m for i, m in enumerate(self.modules) if i not in numbers]
        before, trainable = self._off, [m for m in resting if m.A.requires_grad]
        for module in resting:
            module.A.grad = module.B.grad = None
        for module in trainable:
            module.A.requires_grad_(False)
            module.B.requires_grad_(False)
        self._off = before.union(*(module.names for module in resting))
        try:
            yield
        finally:
            self._off = before
            for module in trainable:
                module.A.requires_grad_(True)
                module.B.requires_grad_(True)

    def components(self) -> dict[str, tuple[slice, ...]]:
        """Return where the components that are off lie in the weights of modules on in part."""
        parts: dict[str, tuple[slice, ...]] = {}
        for module, rank in zip(self.modules, self.ranks.tolist(), strict=True):
            if 0 < rank < module.rank:
                A, B = module.names
                parts[A] = (slice(rank, None),)
                parts[B] = (slice(None), slice(rank, None))
        return parts


def _only_first(k: int, layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    """Return A x with zeros in place of all components but the first k."""
    return F.pad(output[..., :k], (0, output.shape[-1] - k))
