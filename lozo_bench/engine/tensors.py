"""Small tensor functions that several files share: dtypes, copies, hashes, device transfers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile

import torch
from torch import Tensor

from lozo_bench.engine.to_host import InPieces, bytes_of
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


def same_bits(one: Mapping[str, Tensor], other: Mapping[str, Tensor | InPieces]) -> bool:
    """Return whether two sets of tensors have the same names, dtypes, shapes and bits."""
    return one.keys() == other.keys() and all(
        x is other[name] or _have_same_bits(x, other[name]) for name, x in one.items()
    )


def _have_same_bits(x: Tensor, y: Tensor | InPieces) -> bool:
    if (x.dtype, x.shape) != (y.dtype, y.shape):
        return False
    here, start = _bytes(x), 0
    for there in [_bytes(y)] if isinstance(y, Tensor) else y.pieces():
        if not torch.equal(here[start : start + len(there)].cpu(), there.cpu()):
            return False
        start += len(there)
    return True


def _bytes(x: Tensor) -> Tensor:
    return x.detach().contiguous().reshape(-1).view(torch.uint8)


def fingerprint(tensors: Mapping[str, Tensor | InPieces]) -> str:
    """Return a hash of the names, dtypes, shapes and all bits of the tensors."""
    return _hashed(tensors, sorted(tensors), hashlib.blake2b(digest_size=16))


def fingerprints(
    one: Mapping[str, Tensor | InPieces], other: Mapping[str, Tensor | InPieces]
) -> tuple[str, str]:
    """Return the fingerprints of two sets of tensors; those at the start of both count once.

    Hashing takes long: a second or two for each GB. States of an engine between which no update was
    folded have the same weights, and these are the first tensors by name.
    """
    names, others = sorted(one), sorted(other)
    pairs = zip(names, others, strict=False)
    common = sum(1 for _ in takewhile(lambda pair: _same(pair, one, other), pairs))
    start = hashlib.blake2b(digest_size=16)
    _hashed(one, names[:common], start)
    return (
        _hashed(one, names[common:], start.copy()),
        _hashed(other, others[common:], start.copy()),
    )


def _same(
    pair: tuple[str, str],
    one: Mapping[str, Tensor | InPieces],
    other: Mapping[str, Tensor | InPieces],
) -> bool:
    return pair[0] == pair[1] and one[pair[0]] is other[pair[1]]


def _hashed(
    tensors: Mapping[str, Tensor | InPieces], names: Sequence[str], hasher: hashlib.blake2b
) -> str:
    described = -1
    for number, data in bytes_of(tensors[name] for name in names):
        if number != described:
            name, described = names[number], number
            x = tensors[name]
            hasher.update(f"{name} {x.dtype} {tuple(x.shape)};".encode())
        hasher.update(data)
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
