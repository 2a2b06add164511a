"""Tensors in a file without a name, which are written and read piece by piece.

They take no memory of the process. The system keeps what it has room for, and gives that room away
when somebody needs it.
"""

from __future__ import annotations

import errno
import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from lozo_bench.engine.to_host import bytes_of

PIECE_BYTES = 2**20


class UnnamedFile:
    """A file that disappears when nobody holds it any more.

    Args:
        folder: where it is.
        size: its size in bytes, which it takes at once: a full disk is noticed here.

    Raises:
        OSError: the disk has no room, or the permission is missing; it names the folder.
    """

    def __init__(self, folder: Path, size: int) -> None:
        try:
            self._file = tempfile.TemporaryFile(  # noqa: SIM115  # as long as this object
                prefix=".best-", dir=folder, buffering=0
            )
            weakref.finalize(self, self._file.close)
            os.posix_fallocate(self._file.fileno(), 0, size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(folder)) from error
        self._folder = str(folder)

    def write(self, data: memoryview, at: int) -> None:
        """Write bytes to a place in the file."""
        while data:
            written = os.pwrite(self._file.fileno(), data, at)
            data, at = data[written:], at + written

    def read(self, into: memoryview, at: int) -> None:
        """Fill ``into`` with the bytes from a place in the file on."""
        while into:
            count = os.preadv(self._file.fileno(), [into], at)
            if not count:
                raise OSError(
                    errno.EIO, "the file of the best step's weights was cut", self._folder
                )
            into, at = into[count:], at + count


class Stored:
    """The place of a tensor in a file.

    Args:
        file: the file.
        at: the place of its first byte.
        like: a tensor of the same shape and dtype.
    """

    def __init__(self, file: UnnamedFile, at: int, like: Tensor) -> None:
        self._file, self._at = file, at
        self.shape, self.dtype, self.nbytes = like.shape, like.dtype, like.nbytes

    def copy_(self, x: Tensor) -> None:
        """Write a tensor of this shape and dtype to the file."""
        at = self._at
        for _, data in bytes_of([x]):
            self._file.write(data, at)
            at += len(data)

    def pieces(self) -> Iterator[Tensor]:
        """Yield the bytes in order; a piece is valid until the one after the next is asked for."""
        buffers = [torch.empty(min(PIECE_BYTES, self.nbytes), dtype=torch.uint8) for _ in range(2)]
        for number, start in enumerate(range(0, self.nbytes, PIECE_BYTES)):
            piece = buffers[number % 2][: self.nbytes - start]
            self._file.read(piece.numpy().data, self._at + start)
            yield piece

    def copy_to(self, x: Tensor) -> None:
        """Write what is in the file to a tensor of this shape and dtype."""
        if not x.is_contiguous():
            x.copy_(self.load())
            return
        flat, start = x.view(-1), 0
        for piece in self.pieces():
            values = piece.view(self.dtype)
            flat[start : start + len(values)].copy_(values)
            start += len(values)

    def load(self) -> Tensor:
        """Return the tensor in memory."""
        x = torch.empty(self.shape, dtype=self.dtype)
        self.copy_to(x)
        return x


# What keeps a tensor: memory or a file.
Kept = Tensor | Stored


def put(x: Tensor, kept: Kept) -> None:
    """Give x the values of what was kept of it."""
    if isinstance(kept, Stored):
        kept.copy_to(x)
    elif kept is not x:
        x.copy_(kept)


def in_memory(state: Mapping[str, Kept]) -> dict[str, Tensor]:
    """Return the tensors that are in memory."""
    return {name: x for name, x in state.items() if isinstance(x, Tensor)}
