"""A Triton kernel that draws the normals of `philox` and adds them to weights in one pass.

The kernel returns exactly the bits of the torch code in `gaussian`.
"""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from lozo_bench.errors import UserError
from lozo_bench.randomness.kernels import COUNTERS, HAS_TRITON, OPTIONS, jit, normals_of, tl
from lozo_bench.randomness.philox import WORD


@jit
def as_bfloat(x):  # type: ignore[no-untyped-def]
    """The bits, int16, of the bfloat16 number nearest to each float32 x; ties go to even."""
    # A bfloat16 is the upper half of a float32. Adding to the bits of a NaN (all ones on a GPU)
    # would overflow to zero, so NaN is set explicitly.
    bits = x.to(tl.uint32, bitcast=True)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return tl.where(x == x, rounded, 0x7FC0).to(tl.uint16).to(tl.int16, bitcast=True)


@jit
def from_bfloat(x):  # type: ignore[no-untyped-def]
    """The float32 number of the bits, int16, of each bfloat16."""
    return (x.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)


# The kernel is compiled once for each dtype: neither a number that is 1 or a multiple of 16 nor the
# alignment of x makes a variant of its own. The arithmetic of float64 takes longer than the memory,
# so loads of single numbers, which the compiler makes of this, cost nothing.
@jit(  # type: ignore[untyped-decorator]
    do_not_specialize=["size", "by_bits", "key0", "key1", "step_low", "step_high"],
    do_not_specialize_on_alignment=["x_at"],
)
def _move_by_normals(  # type: ignore[no-untyped-def]
    x_at,
    size: tl.int64,
    by_bits: tl.int64,
    key0: tl.int64,
    key1: tl.int64,
    step_low: tl.int64,
    step_high: tl.int64,
    BITS: tl.constexpr,
    BFLOAT: tl.constexpr,
    COUNTERS: tl.constexpr,
):
    counter = tl.program_id(0).to(tl.int64) * COUNTERS + tl.arange(0, COUNTERS)
    z = normals_of(counter, key0, key1, step_low, step_high, BITS == 64)
    element = tl.program_id(0).to(tl.int64) * (4 * COUNTERS) + tl.arange(0, 4 * COUNTERS)
    inside = element < size
    x = tl.load(x_at + element, mask=inside, other=0)
    by = (tl.zeros_like(element) + by_bits).to(tl.float64, bitcast=True).to(z.dtype)
    y = as_bfloat(from_bfloat(x) + by * z) if BFLOAT else (x.to(z.dtype) + by * z).to(x.dtype)
    tl.store(x_at + element, y, mask=inside)


def move_by_normals(x: Tensor, by: float, key: tuple[int, int], step: int) -> None:
    """Add by * z to x in place, with one read and one write; z is the normal draw of (key, step).

    The result has the bits that the docstring of `gaussian` describes.

    Args:
        x: the weight; contiguous, of dtype float64, float32, bfloat16 or float16.
        by: factor of z; rounded to float32 unless x is float64.
        key: the two words that `draws.key_words` returns.
        step: upper half of the generator's counter.

    Raises:
        UserError: Triton is not installed.
    """
    if not HAS_TRITON:
        raise UserError(
            f"updating weights on {x.device} needs the package triton, which is not installed;"
            " install it, or train with device=cpu"
        )
    if not x.numel():
        return
    bfloat = x.dtype == torch.bfloat16
    grid = (-(-x.numel() // (4 * COUNTERS)),)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        _move_by_normals[grid](
            x.view(torch.int16) if bfloat else x,
            x.numel(),
            struct.unpack("<q", struct.pack("<d", by))[0],
            *key,
            step & WORD,
            step >> 32,
            BITS=x.element_size() * 8,
            BFLOAT=bfloat,
            COUNTERS=COUNTERS,
            **OPTIONS,
        )
