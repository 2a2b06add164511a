"""Random directions that can be drawn again: keyed by (run seed, role, step, parameter).

Nothing here has state. A draw depends on its key alone, so perturbation and update cannot fall out
of step, the order of parameters does not matter, and no other part of the program can shift a run
by asking for one more random number.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from math import prod

import torch
from torch import Tensor

from lozo_bench.engine.philox import WORD, fill_with_normals, philox

Shapes = Mapping[str, tuple[int, ...]]
Span = tuple[str, int, int]  # name, first block of four, number of blocks


@functools.lru_cache(maxsize=10_000)
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
        sizes = [prod(shape) for shape in shapes.values()]
        spans = [(name, 0, -(-size // 4)) for name, size in zip(shapes, sizes, strict=True)]
        values = self._values(role, step, spans, torch.device(device), dtype)
        # Every second piece is what the last block of four holds too much.
        pieces = torch.split(values, [part for size in sizes for part in (size, -size % 4)])[::2]
        return {
            name: piece.view(shape)
            for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
        }

    def normal_range(
        self,
        role: str,
        step: int,
        name: str,
        start: int,
        stop: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Elements ``start`` to ``stop`` (left out) of the flattened tensor ``name``; [stop-start].

        They are those of ``normal``, so a large tensor can be drawn piece by piece.
        """
        first = start // 4
        span = (name, first, -(-stop // 4) - first)
        values = self._values(role, step, [span], torch.device(device), dtype)
        return values[start - 4 * first : stop - 4 * first]

    def uniform_range(
        self,
        role: str,
        step: int,
        name: str,
        start: int,
        stop: int,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Elements ``start`` to ``stop`` (left out) of a flat stream of float32 in [0, 1)."""
        first = start // 4
        index = torch.arange(first, -(-stop // 4), device=device)
        counter = [index & WORD, index >> 32]
        counter += [torch.full_like(index, word) for word in (step & WORD, step >> 32)]
        key = torch.tensor(key_words(self.seed, role, name), device=device)
        words = philox((counter[0], counter[1], counter[2], counter[3]), (key[:1], key[1:]))
        uniform = (torch.stack(words, dim=1).view(-1) >> 8).float() * 2.0**-24
        return uniform[start - 4 * first : stop - 4 * first]

    def _values(
        self, role: str, step: int, spans: list[Span], device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """Flat normals: four for each block of each span, span after span."""
        # Apple's GPUs have no float64: there, the same numbers are made on the CPU and sent over.
        maker = torch.device("cpu") if device.type == "mps" else device
        limit = _chunk_blocks(maker)
        total = sum(count for _, _, count in spans)
        values = torch.empty(total, 4, dtype=dtype, device=maker)
        # One allocation for all of the work: fresh memory costs more than the arithmetic.
        scratch = torch.empty(6 * 2 * min(limit, total), dtype=torch.int64, device=maker)
        done = 0
        for chunk in _chunks(spans, limit):
            counts = torch.tensor([count for _, _, count in chunk])
            keys = torch.tensor([key_words(self.seed, role, name) for name, _, _ in chunk]).T
            shifts = torch.tensor([first for _, first, _ in chunk]) - (counts.cumsum(0) - counts)
            if len(chunk) > 1:
                keys = keys.repeat_interleave(counts, dim=1)
                shifts = shifts.repeat_interleave(counts)
            n = int(counts.sum())
            index = torch.arange(n, device=maker).add_(shifts.to(maker))
            room = scratch[: 12 * n].view(6, 2, n)
            fill_with_normals(values[done : done + n], index, step, keys.to(maker), room)
            done += n
        return values.view(-1).to(device)


def _chunk_blocks(device: torch.device) -> int:
    """How many blocks of four normals are worked on at once.

    On a CPU, what stays in the cache and still occupies every thread (torch gives a thread 32,768
    elements); elsewhere, what makes the cost of a launch small.
    """
    return 16_384 * torch.get_num_threads() if device.type == "cpu" else 2**20


def _chunks(spans: list[Span], limit: int) -> Iterator[list[Span]]:
    """The spans in order, cut and collected so that each list holds at most ``limit`` blocks."""
    chunk: list[Span] = []
    room = limit
    for name, first, count in spans:
        while count:
            taken = min(count, room)
            chunk.append((name, first, taken))
            first, count, room = first + taken, count - taken, room - taken
            if not room:
                yield chunk
                chunk, room = [], limit
    if chunk:
        yield chunk
