"""Small tensor functions that several files share: dtypes, copies, hashes, device transfers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lozo_bench.errors import UserError


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to compute in: float64 for float64, float32 for float32 and half types."""
    return torch.promote_types(dtype, torch.float32)


def is_half(dtype: torch.dtype) -> bool:
    """Return whether the dtype is bfloat16 or float16."""
    return dtype in (torch.bfloat16, torch.float16)


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous copies on the CPU; tensors that are there already are copied as well."""
    contiguous = torch.contiguous_format  # safetensors writes no other
    return {
        name: x.detach().to("cpu", copy=True, memory_format=contiguous)
        for name, x in tensors.items()
    }


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of the names, dtypes, shapes and all bits of the tensors."""
    hasher = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        x = tensors[name].detach().to("cpu").contiguous()
        hasher.update(f"{name} {x.dtype} {tuple(x.shape)};".encode())
        hasher.update(x.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


class DeviceCache:
    """A cache of small tensors that many weights share, one copy for each device and dtype.

    Copying such a tensor to a GPU once per weight would take longer than computing with it.
    """

    def __init__(self) -> None:
        self._cache: dict[tuple[object, ...], Tensor] = {}

    def __call__(self, key: tuple[object, ...], make: Callable[[], Tensor], like: Tensor) -> Tensor:
        """Return ``make()`` on the device and in the dtype of ``like``; cached by ``key``."""
        key = (*key, like.device, like.dtype)
        if key not in self._cache:
            self._cache[key] = make().to(like)
        return self._cache[key]


def check_weights(X: Mapping[str, Tensor]) -> None:
    """Refuse weights that cannot be viewed as matrices without a copy.

    Raises:
        UserError: a tensor of more than two dimensions is not contiguous.
    """
    for name, x in X.items():
        if x.ndim > 2 and not x.is_contiguous():
            raise UserError(
                f"the weight {name!r} has {x.ndim} dimensions and is not contiguous; "
                "model.to(memory_format=torch.contiguous_format) makes it so"
            )
