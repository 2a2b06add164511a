"""Two sets of values of the same parameters: one is in them, the other is kept beside them.

Bilevel-ZOFO has two copies p and s of an adapter. The model has one adapter, and the values are
swapped, so that neither the model nor the tuning knows that there are two.

Both sets are among the engine's `Extras`: the parameters under ``adapter/NAME``, the values beside
them under ``other/NAME``, and the number of the set that is in the parameters under ``set``. So
they are saved, restored and fingerprinted with the weights, and no direction moves them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from lozo_bench.engine.terms import Extras, with_prefix

_SHOWN = "set"


def two_sets(parameters: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Extras:
    """Return the extras of parameters that have a second set of values.

    Args:
        parameters: by name; at the start they hold the first set.
        other: the second set's values, by the same names.
    """
    tensors = {f"adapter/{name}": x for name, x in parameters.items()}
    tensors |= {f"other/{name}": x for name, x in other.items()}
    return Extras(tensors | {_SHOWN: torch.zeros((), dtype=torch.int64)})


class ValueSets:
    """The parameters of an engine that have two sets of values.

    Args:
        extras: the engine's, which `two_sets` made. Others have no such parameters.

    Attributes:
        parameters: by name.
    """

    def __init__(self, extras: Extras) -> None:
        self.parameters = with_prefix("adapter", extras.tensors)
        self._other = with_prefix("other", extras.tensors)
        self._shown = extras.tensors.get(_SHOWN, torch.zeros((), dtype=torch.int64))

    @property
    def shown(self) -> int:
        """The number of the set that is in the parameters, 0 or 1."""
        return int(self._shown)

    @torch.no_grad()
    def show(self, number: int) -> None:
        """Put a set into the parameters, and what was in them beside them."""
        if number == self.shown:
            return
        for name, x in self.parameters.items():
            before = x.clone()
            x.copy_(self._other[name])
            self._other[name].copy_(before)
        self._shown.fill_(number)

    @contextmanager
    def showing(self, number: int) -> Iterator[None]:
        """Return a context in which a set is in the parameters; then the set from before is."""
        before = self.shown
        self.show(number)
        try:
            yield
        finally:
            self.show(before)

    @torch.no_grad()
    def overwrite_other(self) -> None:
        """Give the set that is beside the parameters the values that are in them."""
        for name, x in self.parameters.items():
            self._other[name].copy_(x)

    def state(self) -> dict[str, Tensor]:
        """Return nothing: the engine saves both sets with its extras."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Do nothing; see `state`."""
