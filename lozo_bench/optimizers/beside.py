"""Draws on the device of each weight: `model.device_map` divides a model among several GPUs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lozo_bench.randomness.draws import Draws, Shapes


def normal_beside(
    draws: Draws,
    role: str,
    step: int,
    shapes: Shapes,
    devices: Mapping[str, torch.device],
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """Return what ``draws.normal`` returns, each tensor drawn on its own device.

    Args:
        draws: the source; a draw depends on its name, not on the device or the other names.
        role: see `Draws.normal`.
        step: see `Draws.normal`.
        shapes: the shape of each tensor, by name.
        devices: the device of each of these names, and perhaps of others.
        dtype: of the tensors.
    """
    groups: dict[torch.device, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        groups.setdefault(devices[name], {})[name] = shape
    drawn = [draws.normal(role, step, group, where, dtype) for where, group in groups.items()]
    if len(drawn) == 1:
        return drawn[0]
    every = {name: x for some in drawn for name, x in some.items()}
    return {name: every[name] for name in shapes}
