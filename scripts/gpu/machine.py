"""The device that is checked, the time that is left, and the model that stays in its memory."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from bench import models
from bench.models import Sizes
from torch import Tensor, nn

GIB = 2**30
Line = dict[str, Any]  # the result of a check, one line of JSON


@dataclass
class Machine:
    """What all checks share.

    Args:
        device: ``cuda`` or ``cpu``.
        tiny: use tiny sizes, to try the checks themselves.
        budget: the seconds that all checks may take together.
        began: when the first check began, in seconds since the epoch.
    """

    device: str
    tiny: bool
    budget: float
    began: float = field(default_factory=time.time)
    _kept: dict[str, nn.Module] = field(default_factory=dict)

    @property
    def is_cuda(self) -> bool:
        """Whether a GPU is checked."""
        return self.device == "cuda"

    def seconds_left(self) -> float:
        """Return how many seconds of the budget are left."""
        return self.budget - (time.time() - self.began)

    def finish(self) -> None:
        """Wait until the device has finished all work."""
        if self.is_cuda:
            torch.cuda.synchronize()

    def free_memory(self) -> None:
        """Return unused memory to the device."""
        gc.collect()
        if self.is_cuda:
            torch.cuda.empty_cache()

    def milliseconds(self, run: Callable[[], object], repeats: int = 5, warm_up: int = 2) -> float:
        """Return the median wall-clock time of a call, until the device has finished it."""
        for _ in range(warm_up):
            run()
        taken = []
        for _ in range(repeats):
            self.finish()
            began = time.perf_counter()
            run()
            self.finish()
            taken.append(1e3 * (time.perf_counter() - began))
        return median(taken)

    def sizes(self, name: str) -> Sizes:
        """Return the published sizes of a model, or tiny ones."""
        sizes = models.KNOWN[name]
        return sizes.overridden(layers=2, hidden=64, vocab=512) if self.tiny else sizes

    def model(self, name: str) -> nn.Module:
        """Return a bfloat16 model with random weights; it is kept until another one is needed."""
        if name not in self._kept:
            self.forget_model()
            config = models.config_of(name, self.sizes(name))
            self._kept[name] = models.random_model(
                config, torch.bfloat16, torch.device(self.device)
            )
        return self._kept[name]

    def forget_model(self) -> None:
        """Free the memory of the model that is kept."""
        self._kept.clear()
        self.free_memory()


def bits_differ(a: Tensor, b: Tensor) -> int:
    """Return how many elements of two tensors do not have the same bits; all NaN count as equal."""
    values = (a != b) & ~(a.isnan() & b.isnan())
    signs = (a.signbit() != b.signbit()) & ~a.isnan()
    return int((values | signs).sum())
