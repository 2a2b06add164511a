"""Small things about tensors that several rooms of the engine need."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def wide(dtype: torch.dtype) -> torch.dtype:
    """float32, or float64 for float64: what half precision is computed in."""
    return torch.promote_types(dtype, torch.float32)


def is_half(x: Tensor) -> bool:
    """Whether x is bfloat16 or float16."""
    return x.dtype in (torch.bfloat16, torch.float16)


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, also of what is there already."""
    return {name: x.detach().to("cpu", copy=True) for name, x in tensors.items()}


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names, types, shapes and every bit: equal for equal tensors only."""
    told = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        x = tensors[name].detach().to("cpu").contiguous()
        told.update(f"{name} {x.dtype} {tuple(x.shape)};".encode())
        told.update(x.reshape(-1).view(torch.uint8).numpy().data)
    return told.hexdigest()


class Sent:
    """Small tensors that many weights share, sent once to each device and type they are needed in.

    A copy to a GPU for each weight would take longer than what it is for.
    """

    def __init__(self) -> None:
        self._there: dict[tuple[object, ...], Tensor] = {}

    def __call__(self, key: tuple[object, ...], make: Callable[[], Tensor], like: Tensor) -> Tensor:
        """What ``make`` makes, on the device and of the type of ``like``; made once a key."""
        key = (*key, like.device, like.dtype)
        if key not in self._there:
            self._there[key] = make().to(like)
        return self._there[key]
