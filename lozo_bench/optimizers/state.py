"""What an optimizer has gathered, for a checkpoint: read off its attributes.

So that a new optimizer's file needs no line about it. Numbers, tensors and mappings of names to
tensors are an optimizer's state, and so is that of a torch optimizer inside it; options are among
the numbers, and harmless. The engine, the draws and the directions are not: they have a state of
their own, or none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lozo_bench.engine.tensors import on_cpu
from lozo_bench.engine.terms import under


def optimizer_state(optimizer: object) -> dict[str, Tensor]:
    """Copies on the CPU, under names like ``t``, ``N/lm_head.weight`` or ``adamw/0/exp_avg``."""
    state: dict[str, Tensor] = {}
    for name, value in vars(optimizer).items():
        if isinstance(value, bool | int | float):
            state[name] = torch.tensor(value, dtype=_number_type(value))
        elif isinstance(value, Tensor):
            state[name] = value
        elif isinstance(value, torch.optim.Optimizer):
            state |= {f"{name}/{key}": x for key, x in _torch_state(value).items()}
        elif isinstance(value, Mapping) and all(isinstance(x, Tensor) for x in value.values()):
            state |= {f"{name}/{key}": x for key, x in value.items()}
    return on_cpu(state)


def load_optimizer_state(optimizer: object, state: Mapping[str, Tensor]) -> None:
    """Go back to a `state` of an optimizer that was made from the same options."""
    device = _device(optimizer)
    for name, value in vars(optimizer).items():
        if isinstance(value, bool | int | float):
            setattr(optimizer, name, type(value)(state[name].item()))
        elif isinstance(value, Tensor):
            setattr(optimizer, name, state[name].to(value.device))
        elif isinstance(value, torch.optim.Optimizer):
            _load_torch_state(value, under(name, state))
        elif isinstance(value, Mapping) and all(isinstance(x, Tensor) for x in value.values()):
            loaded = {key: x.to(device.get(key, "cpu")) for key, x in under(name, state).items()}
            setattr(optimizer, name, loaded)


def _number_type(value: bool | int | float) -> torch.dtype:
    if isinstance(value, bool):
        return torch.bool
    return torch.int64 if isinstance(value, int) else torch.float64


def _device(optimizer: object) -> dict[str, torch.device]:
    """Where the weight of each name is: what is kept beside a weight goes there."""
    weights: dict[str, Tensor] = {}
    for value in vars(optimizer).values():
        weights |= getattr(value, "X", {})
    return {name: x.device for name, x in weights.items()}


def _torch_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    moments: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{i}/{key}": x if isinstance(x, Tensor) else torch.tensor(x, dtype=_number_type(x))
        for i, each in moments.items()
        for key, x in each.items()
    }


def _load_torch_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Not by `load_state_dict`, which rounds what is kept in float32 beside bfloat16 weights."""
    weights = [x for group in optimizer.param_groups for x in group["params"]]
    optimizer.state.clear()
    for name, x in state.items():
        i, _, key = name.partition("/")
        weight = weights[int(i)]
        # Step counts are scalars, and stay on the CPU.
        optimizer.state[weight][key] = x.to(weight.device, copy=True) if x.ndim else x.clone()
