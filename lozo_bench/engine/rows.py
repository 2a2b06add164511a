"""Several tensors as rows of one tensor, so that one operation changes all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from lozo_bench.randomness.draws import ALIGNMENT


def aligned(count: int) -> int:
    """Return the next multiple of 8, at which a product reads aligned blocks of 16 bytes."""
    return -(-count // ALIGNMENT) * ALIGNMENT


class Rows:
    """Where the rows of several tensors lie in one tensor that holds them all.

    Args:
        lengths: how many rows each tensor has, by name; the order of the names is that of the rows.

    Attributes:
        starts: the first row of each tensor, by name.
        total: the number of rows, those between the tensors included.
    """

    def __init__(self, lengths: Mapping[str, int]) -> None:
        self.lengths = dict(lengths)
        self.starts: dict[str, int] = {}
        self.total = 0
        self._sizes: list[int] = []  # of each tensor and of the gap before it, in turns
        for name, length in self.lengths.items():
            start = aligned(self.total)
            self._sizes += [start - self.total, length]
            self.starts[name], self.total = start, start + length

    def has(self, names: Iterable[str]) -> bool:
        """Return whether these are the names of all tensors, in this order."""
        return list(self.lengths) == list(names)

    def part(self, name: str) -> slice:
        """Return the rows of one tensor."""
        return slice(self.starts[name], self.starts[name] + self.lengths[name])

    def views(self, joined: Tensor) -> dict[str, Tensor]:
        """Return the rows of each tensor, which share the memory of ``joined`` [total, ...]."""
        return dict(zip(self.lengths, torch.split(joined, self._sizes)[1::2], strict=True))

    def join(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return one tensor [total, columns] with the rows of all tensors [length, columns].

        It shares their memory if they already lie there as `views` returns them, as tensors that
        were drawn together often do. What is between the tensors has no meaning.
        """
        in_order = [tensors[name] for name in self.lengths]
        first = in_order[0]
        columns = first.shape[1]
        begin, memory = first.storage_offset(), first.untyped_storage()._cdata
        if all(
            x.storage_offset() == begin + start * columns
            and x.is_contiguous()
            and x.untyped_storage()._cdata == memory
            for x, start in zip(in_order, self.starts.values(), strict=True)
        ):
            return first.as_strided((self.total, columns), (columns, 1))
        pieces: list[Tensor] = []
        for x, gap in zip(in_order, self._sizes[::2], strict=True):
            pieces += [x.new_zeros(gap, columns), x] if gap else [x]
        return torch.cat(pieces)
