"""Random directions that can be drawn again: keyed by (run seed, role, step, parameter).

Nothing here has state. A draw depends on its key alone, so perturbation and update cannot fall out
of step, the order of parameters does not matter, and no other part of the program can shift a run
by asking for one more random number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from lozo_bench.engine.philox import normals, philox

Shapes = Mapping[str, tuple[int, ...]]


def key_words(seed: int, role: str, name: str) -> tuple[int, int]:
    """The 64-bit Philox key of a stream, as two words."""
    digest = hashlib.blake2b(f"{seed}/{role}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


class Draws:
    """Every random number that one run's optimizer uses."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def normal(
        self,
        role: str,
        step: int,
        shapes: Shapes,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> dict[str, Tensor]:
        """One standard normal tensor for each name in ``shapes``.

        The values of a name depend on (seed, role, step, name) only, not on the other names asked
        for with it; asking for many at once is merely faster. ``step`` counts steps, or periods
        for what is drawn once a period. Values are computed in float64 and rounded to ``dtype``.
        """
        blocks = {name: -(-prod(shape) // 4) for name, shape in shapes.items()}
        device = torch.device(device)
        # Apple's GPUs have no float64: there, the same numbers are made on the CPU and sent over.
        maker = torch.device("cpu") if device.type == "mps" else device
        values = self._blocks(role, step, blocks, maker).to(dtype).to(device)
        pieces = torch.split(values, [4 * count for count in blocks.values()])
        return {
            name: piece[: prod(shape)].view(shape)
            for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
        }

    def _blocks(
        self, role: str, step: int, blocks: Mapping[str, int], device: torch.device
    ) -> Tensor:
        """Flat float64 normals: four for each block of each name, name after name."""
        counts = torch.tensor(list(blocks.values()))
        keys = torch.tensor([key_words(self.seed, role, name) for name in blocks])
        starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
        keys = keys.repeat_interleave(counts, dim=0).to(device)
        index = torch.arange(len(starts), device=device) - starts.to(device)
        word = 0xFFFFFFFF
        counter = (
            index & word,
            index >> 32,
            torch.full_like(index, step & word),
            torch.full_like(index, step >> 32),
        )
        return normals(philox(counter, (keys[:, 0], keys[:, 1]))).view(-1)
