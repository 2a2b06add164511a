"""The weights that an engine shows to an optimizer: those that are in the function now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from lozo_bench.engine.terms import Extras


class Shown(Mapping[str, Tensor]):
    """The weights that are in the function now. What it holds changes while gates open and close.

    Args:
        every: all weights by name.
        off: returns the names of those that are not in the function now (see `Extras`).
    """

    def __init__(self, every: Mapping[str, Tensor], off: Callable[[], frozenset[str]]) -> None:
        self.every, self._off = every, off
        self._without: frozenset[str] = frozenset()
        self._now = every

    @property
    def now(self) -> Mapping[str, Tensor]:
        """The weights that are in the function now, as a mapping that stays as it is."""
        off = self._off()
        if off is not self._without:
            self._without = off
            self._now = {name: x for name, x in self.every.items() if name not in off}
        return self._now

    def __getitem__(self, name: str) -> Tensor:
        """Return a weight that is in the function."""
        return self.now[name]

    def __iter__(self) -> Iterator[str]:
        """Return the names."""
        return iter(self.now)

    def __len__(self) -> int:
        """Return how many weights are in the function."""
        return len(self.now)


def shown(X: Mapping[str, Tensor], extras: Extras) -> Mapping[str, Tensor]:
    """Return what an optimizer sees of the weights X: X itself if they are always all on."""
    return X if extras.off is frozenset else Shown(X, extras.off)


def now(X: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the weights that X shows now; later changes do not change what is returned."""
    return X.now if isinstance(X, Shown) else X


def every(X: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return all weights, also those that X does not show now."""
    return X.every if isinstance(X, Shown) else X
