"""Normal tensors of many names, drawn on a GPU by one launch of a kernel.

A step draws factors for hundreds of weights, and every step draws the same names and shapes.
What does not depend on the step is therefore made once and stays on the GPU: the keys of all names
and where their numbers are written.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from lozo_bench.randomness.draws import ALIGNMENT, key_words
from lozo_bench.randomness.kernels import COUNTERS, draw_spans

Items = tuple[tuple[str, tuple[int, ...]], ...]  # names and shapes

_KEPT = 64  # plans that stay in memory, each with some 30 kB of tables


@dataclass(frozen=True, slots=True)
class Plan:
    """How the tensors of many names are drawn into one buffer.

    The tensors lie there in the order of the names, each from a multiple of eight of its rows on.
    Neighbors that differ in nothing but the number of rows make a run, and one operation makes
    tensors of all of them.

    Attributes:
        names: the names of the tensors.
        size: numbers in the buffer.
        gaps: whether there are numbers between tensors; these are zero.
        spans, span_of_program: tables for the kernel, see `draw_spans`.
        runs: the runs, in order.
    """

    names: list[str]
    size: int
    gaps: bool
    spans: Tensor
    span_of_program: Tensor
    runs: list[Run]

    def draw(self, step: int, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return the tensors of a step by name; their values are rounded to ``dtype``."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        empty = torch.zeros if self.gaps else torch.empty
        out = empty(self.size, dtype=wide, device=self.spans.device)
        draw_spans(out, self.spans, self.span_of_program, step)
        out = out.to(dtype)
        tensors = [x for run in self.runs for x in run.tensors(out)]
        return dict(zip(self.names, tensors, strict=True))


@dataclass(slots=True)
class Run:
    """Tensors that lie next to each other and differ only in the number of rows.

    Attributes:
        start: place of the first number in the buffer.
        row: shape of a row; None if the run is one tensor without dimensions.
        rows: rows of each tensor, and of the gap behind it if there is one, in their order.
        kept: places in ``rows`` of the tensors.
    """

    start: int
    row: tuple[int, ...] | None
    rows: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)

    def add(self, rows: int) -> None:
        """Add a tensor, and a gap behind it that ends at a multiple of eight rows."""
        self.kept.append(len(self.rows))
        self.rows += [rows, -rows % ALIGNMENT] if rows % ALIGNMENT else [rows]

    @property
    def size(self) -> int:
        """How many numbers the run takes."""
        return sum(self.rows) * prod(self.row or ())

    def tensors(self, out: Tensor) -> list[Tensor]:
        """Return the tensors of the run; they share the memory of ``out``."""
        if self.row is None:
            return [out[self.start]]
        part = out[self.start : self.start + self.size].view(sum(self.rows), *self.row)
        pieces = torch.split(part, self.rows)
        return [pieces[i] for i in self.kept] if len(self.kept) < len(pieces) else list(pieces)


@functools.lru_cache(maxsize=_KEPT)
def plan_of(seed: int, role: str, items: Items, device: torch.device) -> Plan:
    """Return how the tensors of (seed, role) are drawn.

    Args:
        seed: the run's seed.
        role: the role of the draw.
        items: names and shapes of the tensors.
        device: the device, with its index.
    """
    runs: list[Run] = []
    starts, total = [], 0
    for _, shape in items:
        row = shape[1:] if shape else None
        if not runs or row is None or runs[-1].row != row:
            runs.append(Run(total, row))
        starts.append(total)
        runs[-1].add(shape[0] if shape else 1)
        total = runs[-1].start + runs[-1].size

    counts = torch.tensor([-(-prod(shape) // 4) for _, shape in items], dtype=torch.int64)
    keys = [key_words(seed, role, name) for name, _ in items]
    programs = (counts + COUNTERS - 1) // COUNTERS
    spans = torch.stack(
        [
            *torch.tensor(keys, dtype=torch.int64).view(-1, 2).T,
            torch.zeros_like(counts),
            counts,
            torch.tensor(starts, dtype=torch.int64) // 4,
            programs.cumsum(0) - programs,
        ],
        dim=1,
    )
    span_of_program = torch.arange(len(counts), dtype=torch.int32).repeat_interleave(programs)
    return Plan(
        names=[name for name, _ in items],
        size=total,
        gaps=any(len(run.kept) < len(run.rows) for run in runs),
        spans=spans.to(device),
        span_of_program=span_of_program.to(device),
        runs=runs,
    )
