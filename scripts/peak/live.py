"""Counts the bytes of the tensors that exist at any moment, on meta tensors or on a CPU."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live:
    """The bytes of tensors that exist now, and the most since `take` was last called, by device.

    Memory that existed before is not counted, nor is what is freed before its operation is done.

    Args:
        known: storages that are not counted, such as those of the weights.
    """

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self._known: set[int] = set()

    def leave_out(self, tensors: list[Tensor]) -> None:
        """Do not count these tensors, which exist already."""
        self._known |= {x.untyped_storage()._cdata for x in tensors}

    def take(self) -> Counter[str]:
        """Return the peak since the last call, and begin a new one."""
        peak, self.peak = self.peak, Counter(self.now)
        return peak

    def hold(self, outputs: Any, inputs: Any) -> None:
        """Count the new storages among the outputs of an operation."""
        before = {x.untyped_storage()._cdata for x in _tensors(inputs)}
        for x in _tensors(outputs):
            storage = x.untyped_storage()
            key, size, device = storage._cdata, storage.nbytes(), x.device.type
            if key in before or key in self._known:
                continue
            self._known.add(key)
            self.now[device] += size
            self.peak[device] = max(self.peak[device], self.now[device])
            weakref.finalize(storage, self._free, key, size, device)

    def _free(self, key: int, size: int, device: str) -> None:
        self._known.discard(key)
        self.now[device] -= size


class LiveMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what every operation in this context makes."""

    def __init__(self, live: Live) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._live = live

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and count what it makes."""
        out = func(*args, **(kwargs or {}))
        self._live.hold(out, (args, kwargs))
        return out


def _tensors(tree: Any) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]
