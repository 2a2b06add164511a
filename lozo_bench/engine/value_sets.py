"""Several sets of values of the same parameters: one is in them, the others are kept beside them.

Bilevel-ZOFO has two copies p and s of an adapter, and two for each task if there are several. The
model has one adapter, and the values are exchanged, so that neither the model nor the tuning knows
that there are several.

All sets are among the engine's `Extras`: the parameters under ``adapter/NAME``, the values kept for
set k under ``sets/k/NAME``, and the number of the set that is in the parameters under ``set``. So
they are saved, restored and fingerprinted with the weights, and no direction moves them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count

import torch
from torch import Tensor

from lozo_bench.engine.terms import Extras, with_prefix

_SHOWN = "set"


def with_value_sets(
    parameters: Mapping[str, Tensor], sets: Sequence[Mapping[str, Tensor]]
) -> Extras:
    """Return the extras of parameters that have several sets of values.

    Args:
        parameters: by name; they hold the first set.
        sets: the values of all sets, by the same names.
    """
    tensors = {f"adapter/{name}": x for name, x in parameters.items()}
    for k, values in enumerate(sets):
        tensors |= {f"sets/{k}/{name}": x for name, x in values.items()}
    return Extras(tensors | {_SHOWN: torch.zeros((), dtype=torch.int64)})


class ValueSets:
    """The parameters of an engine that have several sets of values.

    Args:
        extras: the engine's, which `with_value_sets` made. Others have no such parameters.

    Attributes:
        parameters: by name.
    """

    def __init__(self, extras: Extras) -> None:
        self.parameters = with_prefix("adapter", extras.tensors)
        # Those of the set that is in the parameters are outdated; `show` writes them anew.
        self._kept: list[Mapping[str, Tensor]] = []
        for k in count():
            if not (own := with_prefix(f"sets/{k}", extras.tensors)):
                break
            self._kept.append(own)
        self._shown = extras.tensors.get(_SHOWN, torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        """Return how many sets there are; 0 without such parameters."""
        return len(self._kept)

    @property
    def shown(self) -> int:
        """The number of the set that is in the parameters."""
        return int(self._shown)

    def values(self, number: int) -> Mapping[str, Tensor]:
        """Return the values of a set; they must not be changed."""
        return self.parameters if number == self.shown else self._kept[number]

    def show(self, number: int) -> None:
        """Put a set into the parameters, in place of the one that is there."""
        if number != self.shown:
            _copy(self.parameters, self._kept[self.shown])
            _copy(self._kept[number], self.parameters)
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

    def copy(self, source: int, to: int) -> None:
        """Give the set ``to`` the values of the set ``source``."""
        _copy(self.values(source), self.values(to))

    def state(self) -> dict[str, Tensor]:
        """Return nothing: the engine saves all sets with its extras."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Do nothing; see `state`."""


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], to: Mapping[str, Tensor]) -> None:
    for name, x in source.items():
        to[name].copy_(x)
