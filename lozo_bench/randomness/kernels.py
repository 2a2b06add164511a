"""Triton functions that draw the numbers of `philox` on a GPU, and the kernels that store them.

They return exactly the bits of the torch code in `philox`. Therefore nothing here leaves rounding
to the compiler: a multiplication and the addition after it are never fused into one operation, and
neither `log` nor `cos` is called.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import subprocess
from typing import Any

import torch
from torch import Tensor

from lozo_bench.randomness.philox import COS_TERMS, LOG_TERMS, SIN_TERMS, SQRT_HALF_BITS, WORD

log = logging.getLogger(__name__)

HAS_TRITON = importlib.util.find_spec("triton") is not None
COUNTERS = 256  # blocks of four numbers that one program of a kernel draws
OPTIONS = {"enable_fp_fusion": False}  # compiler options of every launch

if HAS_TRITON:
    tl: Any = importlib.import_module("triton.language")
    jit: Any = importlib.import_module("triton").jit
    _errors: Any = (importlib.import_module("triton.errors").TritonError,)
    _LOG = tl.constexpr(tuple(LOG_TERMS))
    _SIN = tl.constexpr(tuple(SIN_TERMS))
    _COS = tl.constexpr(tuple(COS_TERMS))
    _SQRT_HALF = tl.constexpr(SQRT_HALF_BITS)
else:
    # Without Triton the kernels are defined, so that this file can be imported, but never run.
    tl, _errors = None, ()

    def jit(kernel: Any = None, **_: Any) -> Any:
        """Replace `triton.jit`: return the kernel unchanged."""
        return (lambda kernel: kernel) if kernel is None else kernel


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


@jit
def words_of(counter, key0, key1, step_low, step_high):  # type: ignore[no-untyped-def]
    """Four random words, uint32, of each counter; all arguments are int64."""
    zero = tl.zeros_like(counter)
    return _philox(
        counter.to(tl.uint32),
        (counter >> 32).to(tl.uint32),
        (zero + step_low).to(tl.uint32),
        (zero + step_high).to(tl.uint32),
        (zero + key0).to(tl.uint32),
        (zero + key1).to(tl.uint32),
    )


@jit
def in_order(a, b, c, d):  # type: ignore[no-untyped-def]
    """a_0, b_0, c_0, d_0, a_1, b_1, ...: the four numbers of each block, in the last dimension."""
    return tl.interleave(tl.interleave(a, c), tl.interleave(b, d))


@jit
def uniform_of(word):  # type: ignore[no-untyped-def]
    """The uniform float32 in [0, 1) of each random word."""
    return (word >> 8).to(tl.float32) * 5.9604644775390625e-08  # 2^-24


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
def normals_of(  # type: ignore[no-untyped-def]
    counter, key0, key1, step_low, step_high, WIDE: tl.constexpr
):
    """Four normals of each counter, float64 or float32; all arguments are int64."""
    words = words_of(counter, key0, key1, step_low, step_high)
    z0, z1 = _box_muller(words[0], words[1])
    z2, z3 = _box_muller(words[2], words[3])
    if not WIDE:
        z0, z1 = z0.to(tl.float32), z1.to(tl.float32)
        z2, z3 = z2.to(tl.float32), z3.to(tl.float32)
    return in_order(z0, z1, z2, z3)


@jit(do_not_specialize=["count", "first", "key0", "key1", "step_low", "step_high"])  # type: ignore[untyped-decorator]
def _draw_span(  # type: ignore[no-untyped-def]
    out_at,
    count: tl.int64,
    first: tl.int64,
    key0: tl.int64,
    key1: tl.int64,
    step_low: tl.int64,
    step_high: tl.int64,
    NORMAL: tl.constexpr,
    WIDE: tl.constexpr,
    COUNTERS: tl.constexpr,
):
    start = tl.program_id(0).to(tl.int64) * COUNTERS
    counter = first + start + tl.arange(0, COUNTERS)
    if NORMAL:
        values = normals_of(counter, key0, key1, step_low, step_high, WIDE)
    else:
        words = words_of(counter, key0, key1, step_low, step_high)
        values = uniform_of(in_order(words[0], words[1], words[2], words[3]))
    place = 4 * start + tl.arange(0, 4 * COUNTERS)
    tl.store(out_at + place, values, mask=place < 4 * count)


@jit(do_not_specialize=["step_low", "step_high"])  # type: ignore[untyped-decorator]
def _draw_spans(  # type: ignore[no-untyped-def]
    out_at,
    spans_at,
    span_at,
    step_low: tl.int64,
    step_high: tl.int64,
    WIDE: tl.constexpr,
    COUNTERS: tl.constexpr,
):
    program = tl.program_id(0)
    row_at = spans_at + tl.load(span_at + program).to(tl.int64) * 6
    key0, key1 = tl.load(row_at), tl.load(row_at + 1)
    first, count = tl.load(row_at + 2), tl.load(row_at + 3)
    block, first_program = tl.load(row_at + 4), tl.load(row_at + 5)
    start = (program - first_program) * COUNTERS
    counter = first + start + tl.arange(0, COUNTERS)
    values = normals_of(counter, key0, key1, step_low, step_high, WIDE)
    place = 4 * start + tl.arange(0, 4 * COUNTERS)
    tl.store(out_at + 4 * block + place, values, mask=place < 4 * count)


@functools.cache
def run_on(device: torch.device) -> bool:
    """Return whether kernels run on this device: on a GPU, if Triton can compile for it.

    Triton needs a C compiler and Python's headers. Where it fails, a warning says so.
    """
    if device.type != "cuda" or not HAS_TRITON:
        return False
    try:
        draw_span(torch.empty(4, device=device), 0, (0, 0), 0)
    except (*_errors, RuntimeError, OSError, subprocess.SubprocessError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        log.warning(
            "Triton cannot compile for %s: %s; slower code computes the same numbers; what to do:"
            " install a C compiler and the headers of Python",
            device,
            reason.rstrip("."),
        )
        return False
    return True


def draw_span(
    out: Tensor, first: int, key: tuple[int, int], step: int, *, normal: bool = True
) -> None:
    """Fill ``out`` with the numbers of the blocks first, first + 1, ... of one stream.

    Args:
        out: contiguous, float32, or float64 if the numbers are normals; its size is a multiple of
            four.
        first: the first block of four numbers.
        key: the two words that `draws.key_words` returns.
        step: upper half of the generator's counter.
        normal: draw standard normals; otherwise uniform numbers in [0, 1).
    """
    count = out.numel() // 4
    if not count:
        return
    with torch.cuda.device_of(out):  # type: ignore[no-untyped-call]
        _draw_span[(-(-count // COUNTERS),)](
            out,
            count,
            first,
            *key,
            step & WORD,
            step >> 32,
            NORMAL=normal,
            WIDE=out.dtype == torch.float64,
            COUNTERS=COUNTERS,
            **OPTIONS,
        )


def draw_spans(out: Tensor, spans: Tensor, span_of_program: Tensor, step: int) -> None:
    """Fill ``out`` with the normals of many streams in one launch.

    Args:
        out: contiguous, float32 or float64.
        spans: a row for each stream, int64 [n, 6]: two words of the key, first block of four
            normals, number of blocks, place of the first of them among the blocks of ``out``, and
            the first program that draws this stream.
        span_of_program: row in ``spans`` of each program, int32.
        step: upper half of the generator's counter.
    """
    if not len(span_of_program):
        return
    with torch.cuda.device_of(out):  # type: ignore[no-untyped-call]
        _draw_spans[(len(span_of_program),)](
            out,
            spans,
            span_of_program,
            step & WORD,
            step >> 32,
            WIDE=out.dtype == torch.float64,
            COUNTERS=COUNTERS,
            **OPTIONS,
        )
