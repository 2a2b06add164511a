"""What the loop asks of whoever remembers a run: how far it came before, and what it does now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor


class Memory(Protocol):
    """A run's past and present. ``known`` is the last step that was made before; 0 without one."""

    known: int

    def told(self, step: int) -> Sequence[Tensor]:
        """What the optimizer was told in a step up to ``known``."""
        ...

    def evaluation(self, step: int, name: str) -> Mapping[str, float] | None:
        """What an evaluation that was made before had found."""
        ...

    def spent(self) -> Mapping[str, float]:
        """What the steps up to ``known`` had cost, as it was given to `made`."""
        ...

    def state(self) -> tuple[int, Mapping[str, Tensor], Mapping[str, Any]] | None:
        """The state to go on from: its step, its tensors, and what was told with them."""
        ...

    def evaluated(self, step: int, name: str, values: Mapping[str, float]) -> None:
        """Take down an evaluation."""
        ...

    def made(self, step: int, told: Sequence[Tensor], spent: Mapping[str, float]) -> None:
        """Take down a step."""
        ...

    def wants_state(self, step: int) -> bool:
        """Whether a full state should be kept after this step."""
        ...

    def wants_last_state(self, step: int) -> bool:
        """Whether one should be kept after this step, if the run is stopped before the next."""
        ...

    def keep(self, step: int, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> None:
        """Keep a full state."""
        ...

    def flush(self) -> None:
        """Make what was taken down last."""
        ...
