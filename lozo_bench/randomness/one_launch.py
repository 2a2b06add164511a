"""Normal tensors of many names, drawn on a GPU by one launch of a kernel.

A step draws factors for hundreds of weights, and every step draws the same names and shapes.
What does not depend on the step is therefore made once and stays on the GPU: the keys of all names
and where their numbers are written.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from lozo_bench.randomness.draws import key_words
from lozo_bench.randomness.kernels import COUNTERS, draw_spans

Items = tuple[tuple[str, tuple[int, ...]], ...]  # names and shapes

_KEPT = 64  # plans that stay in memory, each with some 30 kB of tables


@dataclass(frozen=True, slots=True)
class Plan:
    """How the tensors of many names are drawn into one buffer.

    Tensors of one shape lie next to each other, so that few operations turn the buffer into
    tensors.

    Attributes:
        size: numbers in the buffer.
        spans, span_of_program: tables for the kernel, see `draw_spans`.
        groups: of each shape: the shape, the first number in the buffer and the tensors' count.
        names: each name with the index of its tensor, in the order in which they are returned.
    """

    size: int
    spans: Tensor
    span_of_program: Tensor
    groups: list[tuple[tuple[int, ...], int, int]]
    names: list[tuple[str, int]]

    def draw(self, step: int, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return the tensors of a step by name; float32, or float64 if dtype is float64."""
        wide = dtype == torch.float64
        out = torch.empty(
            self.size, dtype=torch.float64 if wide else torch.float32, device=self.spans.device
        )
        draw_spans(out, self.spans, self.span_of_program, step)
        out = out.to(dtype)
        tensors: list[Tensor] = []
        for shape, start, count in self.groups:
            size = prod(shape)
            room = size + -size % 4  # normals come in blocks of four
            part = out[start : start + count * room].view(count, room)[:, :size]
            tensors += part.view(count, *shape).unbind()
        return {name: tensors[i] for name, i in self.names}


@functools.lru_cache(maxsize=_KEPT)
def plan_of(seed: int, role: str, items: Items, device: torch.device) -> Plan:
    """Return how the tensors of (seed, role) are drawn.

    Args:
        seed: the run's seed.
        role: the role of the draw.
        items: names and shapes of the tensors.
        device: the device, with its index.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, (_, shape) in enumerate(items):
        by_shape.setdefault(shape, []).append(i)
    order = [i for indices in by_shape.values() for i in indices]
    groups, start = [], 0
    for shape, indices in by_shape.items():
        groups.append((shape, start, len(indices)))
        start += len(indices) * 4 * -(-prod(shape) // 4)

    counts = torch.tensor([-(-prod(items[i][1]) // 4) for i in order], dtype=torch.int64)
    keys = [key_words(seed, role, items[i][0]) for i in order]
    programs = (counts + COUNTERS - 1) // COUNTERS
    spans = torch.stack(
        [
            *torch.tensor(keys, dtype=torch.int64).view(-1, 2).T,
            torch.zeros_like(counts),
            counts,
            counts.cumsum(0) - counts,
            programs.cumsum(0) - programs,
        ],
        dim=1,
    )
    span_of_program = torch.arange(len(counts), dtype=torch.int32).repeat_interleave(programs)
    place = {i: at for at, i in enumerate(order)}
    return Plan(
        size=start,
        spans=spans.to(device),
        span_of_program=span_of_program.to(device),
        groups=groups,
        names=[(name, place[i]) for i, (name, _) in enumerate(items)],
    )
