"""Random tensors that can be drawn again, each keyed by (run seed, role, step, parameter name).

Nothing here has state. A draw depends on its key alone. Therefore the perturbation and the update
of a step always use the same numbers, the order of the parameters does not matter, and no other
part of the program can change a run by drawing one more random number.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from math import prod

import torch
from torch import Tensor

from lozo_bench.randomness.philox import WORD, fill_with_normals, philox

# On a GPU each tensor of a draw begins at a multiple of so many rows. An engine that makes one
# tensor of all then copies nothing, and matrix products read aligned blocks.
ALIGNMENT = 8

Shapes = Mapping[str, tuple[int, ...]]
Span = tuple[str, int, int]  # name, first block of four, number of blocks


@functools.lru_cache(maxsize=10_000)
def key_words(seed: int, role: str, name: str) -> tuple[int, int]:
    """Return the 64-bit Philox key of the stream (seed, role, name) as two 32-bit words."""
    digest = hashlib.blake2b(f"{seed}/{role}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


class Draws:
    """The source of all random numbers of one run.

    Args:
        seed: the run's seed. The role, the step and the name of a draw complete its key.
    """

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
        """Return one standard normal tensor for each name in ``shapes``.

        The values of a name depend on (seed, role, step, name) only and not on the other names in
        the same call; one call for many names is only faster. Values are computed in float64 and
        rounded to ``dtype``.

        Args:
            role: what the tensors are used for, such as "U", "V" or "z".
            step: the step, or the number of the period for tensors that are drawn once a period.
            shapes: the shape of each tensor, by name.
            device: where the tensors are returned.
            dtype: dtype of the tensors.
        """
        device = torch.device(device)
        if _has_kernels(device):
            from lozo_bench.randomness.one_launch import plan_of

            device = torch.empty(0, device=device).device  # with the index of the GPU
            plan = plan_of(self.seed, role, tuple(shapes.items()), device)
            return plan.draw(step, dtype)
        sizes = [prod(shape) for shape in shapes.values()]
        spans = [(name, 0, -(-size // 4)) for name, size in zip(shapes, sizes, strict=True)]
        values = self._values(role, step, spans, device, dtype)
        # Normals come in blocks of four. Every second piece is the unused rest of a last block.
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
        """Return the elements start, ..., stop - 1 of the flattened tensor ``name``, a flat tensor.

        The values are those that `normal` draws, so a large tensor can be drawn piece by piece.
        """
        first = start // 4
        count = -(-stop // 4) - first
        device = torch.device(device)
        if _has_kernels(device):
            from lozo_bench.randomness.kernels import draw_span

            wide = torch.float64 if dtype == torch.float64 else torch.float32
            values = torch.empty(4 * count, dtype=wide, device=device)
            draw_span(values, first, key_words(self.seed, role, name), step)
            values = values.to(dtype)
        else:
            values = self._values(role, step, [(name, first, count)], device, dtype)
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
        """Return the elements start, ..., stop - 1 of a stream of uniform float32 in [0, 1)."""
        first = start // 4
        if _has_kernels(torch.device(device)):
            from lozo_bench.randomness.kernels import draw_span

            uniform = torch.empty(4 * (-(-stop // 4) - first), device=device)
            draw_span(uniform, first, key_words(self.seed, role, name), step, normal=False)
            return uniform[start - 4 * first : stop - 4 * first]
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
        """Return flat normals, four for each block of each span, in the order of the spans."""
        # Apple's GPUs have no float64, so the CPU computes the numbers and copies them there.
        compute_device = torch.device("cpu") if device.type == "mps" else device
        limit = _chunk_blocks(compute_device)
        total = sum(count for _, _, count in spans)
        values = torch.empty(total, 4, dtype=dtype, device=compute_device)
        # All chunks reuse one buffer, because allocating memory costs more than the arithmetic.
        scratch = torch.empty(6 * 2 * min(limit, total), dtype=torch.int64, device=compute_device)
        done = 0
        for chunk in _chunks(spans, limit):
            counts = torch.tensor([count for _, _, count in chunk])
            keys = torch.tensor([key_words(self.seed, role, name) for name, _, _ in chunk]).T
            shifts = torch.tensor([first for _, first, _ in chunk]) - (counts.cumsum(0) - counts)
            if len(chunk) > 1:
                keys = keys.repeat_interleave(counts, dim=1)
                shifts = shifts.repeat_interleave(counts)
            n = int(counts.sum())
            index = torch.arange(n, device=compute_device).add_(shifts.to(compute_device))
            room = scratch[: 12 * n].view(6, 2, n)
            fill_with_normals(values[done : done + n], index, step, keys.to(compute_device), room)
            done += n
        return values.view(-1).to(device)


def _has_kernels(device: torch.device) -> bool:
    """Return whether Triton kernels draw the numbers on this device."""
    if device.type != "cuda":
        return False
    # Only a GPU needs Triton, whose import takes a third of a second.
    from lozo_bench.randomness.kernels import run_on

    return run_on(device)


def _chunk_blocks(device: torch.device) -> int:
    """Return how many blocks of four normals are computed at once.

    On a CPU the number is small enough for the cache and large enough to occupy every thread
    (torch gives one thread 32,768 elements). On a GPU it is large enough that the cost of launching
    kernels does not matter.
    """
    return 16_384 * torch.get_num_threads() if device.type == "cpu" else 2**20


def _chunks(spans: list[Span], limit: int) -> Iterator[list[Span]]:
    """Yield the spans in order, split and joined so that each list has at most ``limit`` blocks."""
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
