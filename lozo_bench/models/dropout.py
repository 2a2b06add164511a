"""Dropout during the forward and backward passes of gradient-based methods.

The published fine-tuning runs train with dropout. Outside these passes a model is in eval mode.
torch's dropout always draws from the default generators of the model's devices. So, for the forward
and backward pass of one micro-batch, these generators are seeded with a key made of (run seed,
step, micro-batch, device); afterwards they get their previous state back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lozo_bench.errors import bad_value
from lozo_bench.randomness.draws import key_words


class Dropout:
    """Factory of contexts in which a model trains with dropout, one context per micro-batch.

    Args:
        model: the model that is differentiated; its config sets the dropout rates.
        seed: the run's seed.

    Raises:
        BadValueError: torch gives no access to the generator of one of the model's devices.
    """

    def __init__(self, model: nn.Module, seed: int) -> None:
        self.model, self.seed = model, seed
        devices = {x.device for x in model.parameters()} | {torch.device("cpu")}
        self.generators = {str(device): _generator(device) for device in devices}

    @contextmanager
    def __call__(self, step: int, part: int) -> Iterator[None]:
        """Enable dropout inside this context.

        Which elements drop out depends only on the run's seed, ``step``, ``part`` (the number of
        the micro-batch) and the device, not on anything drawn earlier.
        """
        before = {name: x.get_state() for name, x in self.generators.items()}
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
