"""A Triton kernel that folds a low-rank update into a half-precision weight, with one pass over it.

The product is summed column by column in float32, each product and each sum rounded by itself. All
that follows has the bits of the torch code in `fold`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lozo_bench.engine.kernels import from_bfloat
from lozo_bench.engine.tensors import is_half
from lozo_bench.randomness.kernels import (
    OPTIONS,
    in_order,
    jit,
    run_on,
    tl,
    uniform_of,
    words_of,
)
from lozo_bench.randomness.philox import WORD

_COLUMNS = 128  # of the part of a weight that one program folds


@jit  # type: ignore[untyped-decorator]
def _number(bits, BFLOAT: tl.constexpr):  # type: ignore[no-untyped-def]
    """The float32 number of the bits, uint32, of a half-precision number."""
    if BFLOAT:
        number = (bits << 16).to(tl.float32, bitcast=True)
    else:
        number = bits.to(tl.uint16).to(tl.float16, bitcast=True).to(tl.float32)
    return number


@jit  # type: ignore[untyped-decorator]
def _rounded(u, chance, STOCHASTIC: tl.constexpr, BFLOAT: tl.constexpr):  # type: ignore[no-untyped-def]
    """The bits, int16, of each float32 u rounded as `fold._round_stochastically` or to nearest."""
    u_bits = u.to(tl.uint32, bitcast=True)
    sign, size = (u_bits >> 31) << 15, tl.abs(u)
    if BFLOAT:
        positive = u_bits & 0x7FFFFFFF
        bits = (positive + 0x7FFF + ((positive >> 16) & 1)) >> 16
        bits = tl.where(u == u, bits, 0x7FC0)  # adding to the bits of a NaN may overflow
    else:
        bits = size.to(tl.float16).to(tl.uint16, bitcast=True).to(tl.uint32) & 0x7FFF
    if STOCHASTIC:
        infinite = 0x7F80 if BFLOAT else 0x7C00
        towards_zero = bits - (_number(bits, BFLOAT) > size).to(tl.uint32)
        below, above = _number(towards_zero, BFLOAT), _number(towards_zero + 1, BFLOAT)
        up = chance * (above - below) < size - below
        bits = tl.where(bits < infinite, towards_zero + up.to(tl.uint32), bits)
    return (bits | sign).to(tl.uint16).to(tl.int16, bitcast=True)


# The kernel is compiled once for each dtype and kind of rounding, and again for rows whose length
# is no multiple of four (ALIGNED).
@jit(  # type: ignore[untyped-decorator]
    do_not_specialize=[
        "m", "n", "R", "l_step", "v_step", "key0", "key1", "step_low", "step_high",
    ],
    do_not_specialize_on_alignment=["l_at", "v_at"],
)  # fmt: skip
def _fold(  # type: ignore[no-untyped-def]
    w_at,
    l_at,
    v_at,
    m: tl.int64,
    n: tl.int64,
    R: tl.int64,
    l_step: tl.int64,
    v_step: tl.int64,
    keep: tl.float32,
    key0: tl.int64,
    key1: tl.int64,
    step_low: tl.int64,
    step_high: tl.int64,
    STOCHASTIC: tl.constexpr,
    BFLOAT: tl.constexpr,
    ALIGNED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    if ALIGNED:
        n = n // 4 * 4  # shows the compiler that it is a multiple of four
    across = tl.cdiv(n, COLUMNS)
    program = tl.program_id(0).to(tl.int64)
    i = (program // across) * ROWS + tl.arange(0, ROWS)
    first = (program % across) * COLUMNS
    j = first + tl.arange(0, COLUMNS)
    inside_i, inside_j = i < m, j < n

    product = tl.zeros([ROWS, COLUMNS], tl.float32)
    l_at += i
    v_at += j
    r = R * 0
    while r < R:  # not for: with some versions, the interpreter knows no range of an argument
        left = tl.load(l_at, mask=inside_i, other=0.0)
        right = tl.load(v_at, mask=inside_j, other=0.0)
        product += left[:, None] * right[None, :]
        l_at += l_step
        v_at += v_step
        r += 1

    w_at += i[:, None] * n + j[None, :]
    inside = inside_i[:, None] & inside_j[None, :]
    w = tl.load(w_at, mask=inside, other=0)
    w = from_bfloat(w) if BFLOAT else w.to(tl.float16, bitcast=True).to(tl.float32)
    u = w * keep + product
    chance = product
    if STOCHASTIC:
        if ALIGNED:  # a block of four random words belongs to four neighbors in a row
            block = i[:, None] * (n // 4) + (first // 4 + tl.arange(0, COLUMNS // 4))[None, :]
            words = words_of(block, key0, key1, step_low, step_high)
            chance = uniform_of(in_order(words[0], words[1], words[2], words[3]))
        else:
            element = i[:, None] * n + j[None, :]
            words = words_of(element >> 2, key0, key1, step_low, step_high)
            odd = (element & 1) != 0
            low, high = tl.where(odd, words[1], words[0]), tl.where(odd, words[3], words[2])
            chance = uniform_of(tl.where((element & 2) != 0, high, low))
    tl.store(w_at, _rounded(u, chance, STOCHASTIC, BFLOAT), mask=inside)


def has_fold_kernel(W: Tensor) -> bool:
    """Return whether `fold_in_one_pass` works for a weight."""
    return is_half(W.dtype) and W.is_contiguous() and run_on(W.device)


def fold_in_one_pass(
    W: Tensor, L: Tensor, V: Tensor, keep: float, stream: tuple[tuple[int, int], int] | None
) -> None:
    """W <- keep W + L V^T in place, in two launches; see `Folder.fold`.

    Args:
        W: the weight for which `has_fold_kernel` holds, [m, n].
        L: [m, R]; neither L nor V is copied if they are float32 and their columns are contiguous.
        V: [n, R].
        keep: factor of W.
        stream: key and step of the uniform numbers for stochastic rounding; None rounds to nearest.
    """
    if not W.numel():
        return
    m, n = W.shape
    left, right = _columns(L, V)
    (key0, key1), step = stream or ((0, 0), 0)
    aligned = n % 4 == 0
    rows = _rows(aligned)
    programs = -(-m // rows) * -(-n // _COLUMNS)
    with torch.cuda.device_of(W):  # type: ignore[no-untyped-call]
        _fold[(programs,)](
            W.view(torch.int16),
            left,
            right,
            m,
            n,
            len(left),
            left.stride(0),
            right.stride(0),
            keep,
            key0,
            key1,
            step & WORD,
            step >> 32,
            STOCHASTIC=stream is not None,
            BFLOAT=W.dtype == torch.bfloat16,
            ALIGNED=aligned,
            ROWS=rows,
            COLUMNS=_COLUMNS,
            **OPTIONS,
        )


def _rows(aligned: bool) -> int:
    """Return how many rows one program folds; drawing for each element takes more registers."""
    return 32 if aligned else 8


def _columns(L: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """Return the columns of L [m, R] and V [n, R] as contiguous rows [R, m] and [R, n], float32."""
    if L.dtype == V.dtype == torch.float32 and L.stride(0) == V.stride(0) == 1:
        return L.T, V.T
    both = torch.cat((L.T, V.T), dim=1).float()  # one launch for both
    return both[:, : len(L)], both[:, len(L) :]
