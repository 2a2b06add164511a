"""Philox4x32-10 and standard normals, the same to the last bit on every device.

The generator is the counter-based one of Salmon et al., "Parallel random numbers: as easy as
1, 2, 3" (SC 2011): a keyed bijection of a 128-bit counter. Any draw can be made again from its key
and counter, in any order and on any machine, which a seeded stream cannot offer (`torch.randn` on
CUDA even depends on the GPU model).

Normals come from Box-Muller with the logarithm and the sine written out as polynomials: only
integer operations and the IEEE operations + - * / sqrt are used, which round alike everywhere,
where `log` and `cos` of different math libraries differ in the last bit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

_LOG_TERMS = [2.0 / (2 * i + 1) for i in range(9)]
_SIN_TERMS = [(-1) ** i / math.factorial(2 * i + 1) for i in range(8)]
_COS_TERMS = [(-1) ** i / math.factorial(2 * i) for i in range(9)]

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Words, key: tuple[Tensor, Tensor]) -> Words:
    """Four random 32-bit words for each counter.

    All arguments are int64 tensors of one shape (or broadcastable) holding words in [0, 2^32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _wide_product(c0, _MULTIPLIERS[0])
        high1, low1 = _wide_product(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 = (k0 + _KEY_STEPS[0]) & _WORD
        k1 = (k1 + _KEY_STEPS[1]) & _WORD
    return c0, c1, c2, c3


def _wide_product(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """High and low word of a 32 x 32 bit product; int64 wraps, which leaves all 64 bits right."""
    product = a * b
    return (product >> 32).bitwise_and_(_WORD), product.bitwise_and_(_WORD)


def normals(words: Words) -> Tensor:
    """Standard normals, float64, shape [..., 4], from four random words each."""
    first = _box_muller(words[0], words[1])
    second = _box_muller(words[2], words[3])
    return torch.stack((*first, *second), dim=-1)


def _box_muller(radius_word: Tensor, angle_word: Tensor) -> tuple[Tensor, Tensor]:
    uniform = (radius_word.double() + 0.5) * 2.0**-32
    radius = torch.sqrt(_log(uniform) * -2.0)
    cosine, sine = _circle(angle_word)
    return radius * cosine, radius * sine


def _log(x: Tensor) -> Tensor:
    """Natural logarithm of 0 < x < 1: ln(m 2^e) = 2 artanh((m-1)/(m+1)) + e ln 2."""
    mantissa, exponent = torch.frexp(x)
    # m between sqrt(1/2) and sqrt(2): |s| stays below 0.172, and nine terms suffice.
    low = mantissa < math.sqrt(0.5)
    mantissa = torch.where(low, mantissa * 2, mantissa)
    s = (mantissa - 1) / (mantissa + 1)
    return s * _polynomial(s * s, _LOG_TERMS) + (exponent - low.int()).double() * math.log(2.0)


def _circle(word: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of a uniform angle: two bits choose the quarter, thirty the place in it."""
    quarter = word >> 30
    angle = ((word & 0x3FFFFFFF).double() - (2.0**29 - 0.5)) * (math.pi / 2 * 2.0**-30)
    square = angle * angle
    sine = angle * _polynomial(square, _SIN_TERMS)
    cosine = _polynomial(square, _COS_TERMS)
    swap = (quarter & 1).bool()
    c, s = torch.where(swap, -sine, cosine), torch.where(swap, cosine, sine)
    sign = 1.0 - (quarter & 2).double()
    return c * sign, s * sign


def _polynomial(x: Tensor, terms: list[float]) -> Tensor:
    """Horner's rule; multiplication and addition stay two operations, so nothing is fused."""
    total = torch.full_like(x, terms[-1])
    for term in reversed(terms[:-1]):
        total.mul_(x).add_(term)
    return total
