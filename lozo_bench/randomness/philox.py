"""The Philox4x32-10 generator and standard normals, the same to the last bit on every device.

Philox is the counter-based generator of Salmon et al., "Parallel random numbers: as easy as
1, 2, 3" (SC 2011): a keyed bijection of a 128-bit counter. Any draw can be repeated from its key
and counter, in any order and on any machine. A seeded stream does not allow this (the numbers of
`torch.randn` on CUDA even depend on the GPU model).

The Box-Muller transform computes the normals, with polynomials for the logarithm, the sine and the
cosine. It uses only integer operations and the IEEE operations + - * / sqrt, which round equally on
all devices, whereas the `log` and `cos` of different math libraries differ in the last bit.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

LOG_TERMS = [2.0 / (2 * i + 1) for i in range(9)]
SIN_TERMS = [(-1) ** i / math.factorial(2 * i + 1) for i in range(8)]
COS_TERMS = [(-1) ** i / math.factorial(2 * i) for i in range(9)]

SQRT_HALF_BITS = 0x3FE6A09E667F3BCD  # the bits of the float64 nearest to sqrt(1/2)
_SIGN_BIT = -(2**63)

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Words, key: tuple[Tensor, Tensor]) -> Words:
    """Return four random 32-bit words, int64 [n] each, for each of n counters.

    Args:
        counter: four words of the counters, int64 [n] or [1], in [0, 2^32).
        key: two words of the keys, int64 [n] or [1], in [0, 2^32).
    """
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)  # type: ignore[no-untyped-call]
    even, odd = torch.stack((c0, c2)), torch.stack((c1, c3))
    even, odd, _ = _rounds(even, odd, torch.stack(key), torch.empty_like(even))
    return even[0], odd[0], even[1], odd[1]


def normals(words: Words) -> Tensor:
    """Return standard normals, float64 [n, 4], from four tensors of random words, int64 [n]."""
    even, odd = torch.stack((words[0], words[2])), torch.stack((words[1], words[3]))
    out = torch.empty(*words[0].shape, 4, dtype=torch.float64, device=even.device)
    _box_muller(even, odd, torch.empty_like(even), even.new_empty(3, *even.shape), out)
    return out


def fill_with_normals(out: Tensor, index: Tensor, step: int, keys: Tensor, scratch: Tensor) -> None:
    """Write normals(philox(...)) of the counters (index, step) to ``out``.

    The function allocates no large tensor.

    Args:
        out: receives the normals, rounded to its dtype; [n, 4].
        index: numbers of the blocks of four normals, the lower half of the counter; int64, [n].
        step: the upper half of the counter.
        keys: low and high words of the keys; int64, [2, n], or [2, 1] for one key; overwritten.
        scratch: buffer for intermediate results; int64, [6, 2, n]; overwritten.
    """
    even, odd, product = scratch[0], scratch[1], scratch[2]
    torch.bitwise_and(index, WORD, out=even[0])
    torch.bitwise_right_shift(index, 32, out=odd[0])
    even[1].fill_(step & WORD)
    odd[1].fill_(step >> 32)
    even, odd, product = _rounds(even, odd, keys, product)
    _box_muller(even, odd, product, scratch[3:], out)


def _rounds(
    even: Tensor, odd: Tensor, keys: Tensor, product: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return words 0 and 2, words 1 and 3, and a buffer that is free again, [2, n] each.

    All arguments are overwritten.
    """
    key_steps = torch.tensor(_KEY_STEPS, device=keys.device).unsqueeze(1)
    for _ in range(_ROUNDS):
        # int64 products wrap, so all 64 bits of a product of two 32-bit words are correct. Only
        # `even` is multiplied, so only `even` must be reduced to its lowest 32 bits.
        torch.mul(even[0], _MULTIPLIERS[0], out=product[1])
        torch.mul(even[1], _MULTIPLIERS[1], out=product[0])
        torch.bitwise_right_shift(product, 32, out=even)
        even.bitwise_xor_(odd).bitwise_xor_(keys).bitwise_and_(WORD)
        keys.add_(key_steps)
        odd, product = product, odd
    return even, odd.bitwise_and_(WORD), product


def _box_muller(
    radius_word: Tensor, angle_word: Tensor, free: Tensor, scratch: Tensor, out: Tensor
) -> None:
    """Write radius times cosine and radius times sine to ``out`` [n, 4], from words [2, n].

    The two highest bits of an angle's word choose the quarter turn, the other thirty the angle
    within it. The words and the buffers ``free`` [2, n] and ``scratch`` [3, 2, n] are overwritten.
    """
    bits, mask = scratch[0], scratch[1]
    angle, square, third = scratch.view(torch.float64)
    radius = free.view(torch.float64).copy_(radius_word).add_(0.5).mul_(2.0**-32)
    _log_(radius, radius_word, scratch)
    _sqrt_(radius.mul_(-2.0))
    angle.copy_(torch.bitwise_and(angle_word, 0x3FFFFFFF, out=radius_word))
    angle.sub_(2.0**29 - 0.5).mul_(math.pi / 2 * 2.0**-30)
    torch.mul(angle, angle, out=square)
    sine = _polynomial(square, SIN_TERMS, third).mul_(angle)
    cosine = _polynomial(square, COS_TERMS, radius_word.view(torch.float64))
    # Bit 31 adds half a turn: cosine and sine change sign, done here by negating the radius. Bit 30
    # adds a quarter turn: (c, s) becomes (-s, c). The swap works on bits, because `torch.where` is
    # slow on a random mask.
    _flip_signs(radius, torch.bitwise_left_shift(angle_word, 32, out=bits))
    torch.bitwise_left_shift(angle_word, 33, out=bits)
    torch.bitwise_right_shift(bits, 63, out=mask)
    c, s = cosine.view(torch.int64), sine.view(torch.int64)
    difference = torch.bitwise_xor(c, s, out=angle_word).bitwise_and_(mask)
    c.bitwise_xor_(difference)
    s.bitwise_xor_(difference)
    _flip_signs(cosine, bits)
    pairs = scratch[:2].view(torch.float64).view(-1, 2, 2)
    torch.mul(cosine, radius, out=pairs[..., 0].T)
    torch.mul(sine, radius, out=pairs[..., 1].T)
    out.view(-1, 2, 2).copy_(pairs)


def _sqrt_(x: Tensor) -> None:
    """Replace x by its square root, correctly rounded; torch's on a CPU may err in the last bit."""
    if x.device.type == "cpu":
        np.sqrt(x.numpy(), out=x.numpy())
    else:
        x.sqrt_()


def _flip_signs(x: Tensor, bits: Tensor) -> None:
    """Negate float64 ``x`` in place where the highest of 64 ``bits`` is 1; overwrites ``bits``."""
    x.view(torch.int64).bitwise_xor_(bits.bitwise_and_(_SIGN_BIT))


def _log_(x: Tensor, exponent: Tensor, scratch: Tensor) -> None:
    """Replace 0 < x < 1 by its natural logarithm, ln(m 2^e) = 2 artanh((m-1)/(m+1)) + e ln 2.

    m lies between sqrt(1/2) and sqrt(2), so |s| = |(m-1)/(m+1)| < 0.172 and nine terms of the
    series suffice. The lowest 52 bits of a float64 are its mantissa; the exponent is above them.
    ``exponent`` and ``scratch`` are buffers and are overwritten.
    """
    upper, (exponent_part, square, s) = scratch[0], scratch.view(torch.float64)
    bits = x.view(torch.int64)
    torch.sub(bits, SQRT_HALF_BITS, out=exponent).bitwise_right_shift_(52)
    bits.sub_(torch.bitwise_left_shift(exponent, 52, out=upper))
    torch.sub(x, 1, out=s).div_(x.add_(1))
    torch.mul(s, s, out=square)
    _polynomial(square, LOG_TERMS, x).mul_(s)
    x.add_(exponent_part.copy_(exponent).mul_(math.log(2.0)))


def _polynomial(x: Tensor, terms: list[float], out: Tensor) -> Tensor:
    """Write the polynomial in x to ``out`` by Horner's rule, without fusing multiply and add."""
    torch.mul(x, terms[-1], out=out).add_(terms[-2])
    for term in reversed(terms[:-2]):
        out.mul_(x).add_(term)
    return out
