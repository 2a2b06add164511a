"""Dropout in the passes of a method that differentiates, as published fine-tuning has it.

A model is in eval mode but for these passes. torch's dropout draws from the generators of the
model's devices and takes no other, so these go to a stream keyed by (run seed, step, part, device)
for as long as a part goes forward and back, and then back to where they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lozo_bench.engine.draws import key_words
from lozo_bench.errors import bad_value


class Dropout:
    """Puts a model into training mode, part by part.

    Args:
        model: what goes forward and back; its config says which shares drop out.
        seed: of the run.

    Raises:
        BadValueError: torch hands out no generator for one of the model's devices.
    """

    def __init__(self, model: nn.Module, seed: int) -> None:
        self.model, self.seed = model, seed
        devices = {x.device for x in model.parameters()} | {torch.device("cpu")}
        self.generators = {str(device): _generator(device) for device in devices}

    @contextmanager
    def __call__(self, step: int, part: int) -> Iterator[None]:
        """While this is open a pass drops out, whatever went before in the same way."""
        before = {device: each.get_state() for device, each in self.generators.items()}
        try:
            for device, generator in self.generators.items():
                low, high = key_words(self.seed, "dropout", f"{step}/{part}/{device}")
                generator.manual_seed(low | (high & 0x7FFFFFFF) << 32)
            self.model.train()
            yield
        finally:
            self.model.eval()
            for device, generator in self.generators.items():
                generator.set_state(before[device])


def _generator(device: torch.device) -> torch.Generator:
    if device.type == "cpu":
        return torch.default_generator
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    raise bad_value("optimizer.dropout", True, f"false with a model on {device.type}")
