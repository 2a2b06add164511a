"""A Triton kernel that draws the normals of `philox` and adds them to weights in one pass.

The kernel must return exactly the bits of the torch code in `philox` and `gaussian`. Therefore
nothing here leaves rounding to the compiler: a multiplication and the addition after it are never
fused into one operation, and neither `log` nor `cos` is called.
"""

from __future__ import annotations

import importlib
import importlib.util
import struct
from typing import Any

import torch
from torch import Tensor

from lozo_bench.errors import UserError
from lozo_bench.randomness.philox import COS_TERMS, LOG_TERMS, SIN_TERMS, SQRT_HALF_BITS, WORD

HAS_TRITON = importlib.util.find_spec("triton") is not None
_COUNTERS = 256  # blocks of four normals that one program of the kernel draws
OPTIONS = {"enable_fp_fusion": False}  # compiler options of every launch

if HAS_TRITON:
    tl: Any = importlib.import_module("triton.language")
    jit: Any = importlib.import_module("triton").jit
    _LOG = tl.constexpr(tuple(LOG_TERMS))
    _SIN = tl.constexpr(tuple(SIN_TERMS))
    _COS = tl.constexpr(tuple(COS_TERMS))
    _SQRT_HALF = tl.constexpr(SQRT_HALF_BITS)
else:
    # Without Triton the kernels are defined, so that this file can be imported, but never run.
    def jit(kernel: Any) -> Any:
        """Replace `triton.jit`: return the kernel unchanged."""
        return kernel


@jit
def _philox(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """Ten rounds of Philox4x32; all words are uint32, whose products and sums wrap at 2^32."""
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, 0xD2511F53), c0 * 0xD2511F53
        high1, low1 = tl.umulhi(c2, 0xCD9E8D57), c2 * 0xCD9E8D57
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0, c1, c2, c3


@jit  # type: ignore[untyped-decorator]
def _polynomial(x, terms: tl.constexpr, count: tl.constexpr):  # type: ignore[no-untyped-def]
    total = x * terms[count - 1] + terms[count - 2]
    for i in tl.static_range(2, count):
        total = total * x + terms[count - 1 - i]
    return total


@jit
def _log(x):  # type: ignore[no-untyped-def]
    bits = x.to(tl.int64, bitcast=True)
    exponent = (bits - _SQRT_HALF) >> 52
    mantissa = (bits - (exponent << 52)).to(tl.float64, bitcast=True)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    return _polynomial(s * s, _LOG, 9) * s + exponent.to(tl.float64) * 0.6931471805599453


@jit
def _box_muller(radius_word, angle_word):  # type: ignore[no-untyped-def]
    uniform = (radius_word.to(tl.float64) + 0.5) * 2.3283064365386963e-10  # 2^-32
    radius = tl.sqrt(_log(uniform) * -2.0)  # correctly rounded in float64
    offset = (angle_word & 0x3FFFFFFF).to(tl.float64) - 536870911.5
    angle = offset * 1.4629180792671596e-09  # pi/2 2^-30
    square = angle * angle
    sine = _polynomial(square, _SIN, 8) * angle
    cosine = _polynomial(square, _COS, 9)
    radius = tl.where((angle_word >> 31) != 0, -radius, radius)
    second = ((angle_word >> 30) & 1) != 0
    return tl.where(second, -sine, cosine) * radius, tl.where(second, cosine, sine) * radius


@jit  # type: ignore[untyped-decorator]
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
    zero = tl.zeros([COUNTERS], tl.int64)
    words = _philox(
        counter.to(tl.uint32),
        (counter >> 32).to(tl.uint32),
        (zero + step_low).to(tl.uint32),
        (zero + step_high).to(tl.uint32),
        (zero + key0).to(tl.uint32),
        (zero + key1).to(tl.uint32),
    )
    z0, z1 = _box_muller(words[0], words[1])
    z2, z3 = _box_muller(words[2], words[3])
    if BITS != 64:
        z0, z1 = z0.to(tl.float32), z1.to(tl.float32)
        z2, z3 = z2.to(tl.float32), z3.to(tl.float32)
    z = tl.interleave(tl.interleave(z0, z2), tl.interleave(z1, z3))

    element = tl.program_id(0).to(tl.int64) * (4 * COUNTERS) + tl.arange(0, 4 * COUNTERS)
    inside = element < size
    x = tl.load(x_at + element, mask=inside, other=0)
    by = (zero + by_bits).to(tl.float64, bitcast=True)
    by = tl.interleave(tl.interleave(by, by), tl.interleave(by, by)).to(z.dtype)
    if BFLOAT:
        # A bfloat16 is the upper half of a float32. Round it to nearest, ties to even. Adding to
        # the bits of a NaN (all ones on a GPU) would overflow to zero, so NaN is set explicitly.
        wide = (x.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
        moved = wide + by * z
        bits = moved.to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        rounded = tl.where(moved == moved, rounded, 0x7FC0)
        y = rounded.to(tl.uint16).to(tl.int16, bitcast=True)
    else:
        y = (x.to(z.dtype) + by * z).to(x.dtype)
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
    grid = (-(-x.numel() // (4 * _COUNTERS)),)
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
            COUNTERS=_COUNTERS,
            **OPTIONS,
        )
