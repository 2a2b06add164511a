"""What a run costs in hours of its devices: so far, and in all if it goes on at this speed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Self

import torch

_WORTH_A_WORD = 0.01  # hours of a whole run


@dataclass(frozen=True, slots=True)
class DeviceHours:
    """The cost of a run.

    Args:
        devices: how many GPUs or, without one, CPU cores the run occupies.
        unit: the name of an hour of one of them.
        before_s: how long earlier attempts ran.
    """

    devices: int = 1
    unit: str = "core-hours"
    before_s: float = 0.0
    began: float = field(default_factory=time.perf_counter)

    @classmethod
    def of(cls, model: torch.nn.Module, processes: int, before_s: float) -> Self:
        """Return the cost of a run of a model in so many processes."""
        gpus = {x.device for x in model.parameters() if x.device.type == "cuda"}
        if gpus:
            return cls(len(gpus) * processes, "GPU-hours", before_s)
        return cls(torch.get_num_threads() * processes, "core-hours", before_s)

    def shown(self, left_s: float) -> str:
        """Return ``0.40 of 1.25 GPU-hours``; nothing of a run that costs next to nothing.

        Args:
            left_s: how long the run is expected to go on.
        """
        spent_s = self.before_s + time.perf_counter() - self.began
        spent, in_all = (self.devices * x / 3600 for x in (spent_s, spent_s + left_s))
        return f"  {spent:.2f} of {in_all:.2f} {self.unit}" if in_all >= _WORTH_A_WORD else ""
