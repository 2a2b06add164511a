"""The bytes of tensors on the host, piece by piece: the next piece is copied while one is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

PIECE_BYTES = 2**26


class InPieces(Protocol):
    """Something with the bytes of a tensor: each piece of them is valid until the one after next.

    It has the shape and dtype of the tensor.
    """

    shape: torch.Size
    dtype: torch.dtype

    def pieces(self) -> Iterator[Tensor]:
        """Yield the bytes in order, as tensors of the CPU."""
        ...


class _Event(Protocol):
    def synchronize(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes of tensor ``number``, which are complete after ``copied``."""

    number: int
    host: Tensor
    copied: _Event | None = None

    def wait(self) -> tuple[int, memoryview]:
        if self.copied is not None:
            self.copied.synchronize()
        return self.number, self.host.numpy().data


def bytes_of(tensors: Iterable[Tensor | InPieces]) -> Iterator[tuple[int, memoryview]]:
    """Yield the number of a tensor and some of its bytes, in order and at least once for each.

    Bytes are valid until the next ones are asked for. Those of a tensor on the CPU are not copied,
    and those on a GPU pass through two buffers of 64 MiB.
    """
    buffers: list[Tensor] = []
    copies, before = 0, None
    for number, here in _pieces(tensors):
        piece = _Piece(number, here)
        if _is_on_gpu(here):
            if len(buffers) < 2:
                buffers.append(_buffer())
            host = buffers[copies % 2][: len(here)].copy_(here, non_blocking=True)
            piece = _Piece(number, host, _after_all(here.device))
            copies += 1
        if before is not None:
            yield before.wait()
        before = piece
    if before is not None:
        yield before.wait()


def _pieces(tensors: Iterable[Tensor | InPieces]) -> Iterator[tuple[int, Tensor]]:
    for number, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            yield from ((number, piece) for piece in tensor.pieces())
            continue
        x = tensor.detach()
        if not x.is_cpu and not _is_on_gpu(x):
            x = x.to("cpu")
        flat = x.contiguous().reshape(-1).view(torch.uint8)
        for start in range(0, max(1, len(flat)), PIECE_BYTES):
            yield number, flat[start : start + PIECE_BYTES]


def _is_on_gpu(x: Tensor) -> bool:
    return x.is_cuda


def _buffer() -> Tensor:
    return torch.empty(PIECE_BYTES, dtype=torch.uint8, pin_memory=True)


def _after_all(device: torch.device) -> _Event:
    """Return an event that is reached when the device has done everything it was told so far."""
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event
