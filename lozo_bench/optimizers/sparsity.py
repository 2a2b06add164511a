"""The fraction of each weight tensor that a random mask keeps, from the magnitudes of all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from lozo_bench.engine.gaussian import GROUP_ELEMENTS

# A magnitude has 31 bits: the upper 15 choose a bin, the lower 16 choose a bin inside that bin.
_UPPER, _LOWER = 2**15, 2**16


def global_keep_rates(X: Mapping[str, Tensor], sparsity: float) -> dict[str, float]:
    """Return 1 - s_l for each tensor l.

    s_l is the fraction of l's elements that are among the smallest ``sparsity`` of all elements.
    Elements that tie at the threshold all count with the same fraction, chosen so that the mean
    rate over all elements is 1 - ``sparsity``. Magnitudes are compared as float32, by their bits.
    Nothing is sorted or sampled, and the rates are the same on every device.

    A tensor of zeros, such as LoRA's B or a new bias, has no magnitudes that could be ranked. Its
    rate is 1 - ``sparsity``, and the other tensors are ranked without it. Otherwise B would never
    move.
    """
    rates = dict.fromkeys(X, 1 - sparsity)
    X = {name: x for name, x in X.items() if bool(x.any())}
    wanted = sparsity * sum(x.numel() for x in X.values())
    upper = _counts(X, lambda bits: bits >> 16, _UPPER)
    upper_bin, below_bin = _bin_of(upper, wanted)
    lower = _counts(X, lambda bits: bits[bits >> 16 == upper_bin] & 0xFFFF, _LOWER)
    lower_bin, below = _bin_of(lower, wanted - below_bin)
    equal = sum(int(counts[lower_bin]) for counts in lower.values())
    share = (wanted - below_bin - below) / equal if equal else 0.0
    for name, x in X.items():
        smaller = int(upper[name][:upper_bin].sum()) + int(lower[name][:lower_bin].sum())
        rates[name] = 1 - (smaller + share * int(lower[name][lower_bin])) / x.numel()
    return rates


def _bin_of(counts: Mapping[str, Tensor], wanted: float) -> tuple[int, int]:
    """Return the first bin at which ``wanted`` elements are reached, and the count before it."""
    if not counts:
        return 0, 0
    together = torch.stack(list(counts.values())).sum(0)
    reached = together.cumsum(0)
    found = int((reached < math.ceil(wanted)).sum())
    return found, int(reached[found] - together[found])


def _counts(
    X: Mapping[str, Tensor], bins: Callable[[Tensor], Tensor], count: int
) -> dict[str, Tensor]:
    """Return how many elements of each tensor are in each of ``count`` bins, int64 on the CPU."""
    return {
        name: torch.stack([bins(bits).bincount(minlength=count) for bits in _bits(x)]).sum(0).cpu()
        for name, x in X.items()
    }


def _bits(x: Tensor) -> Iterator[Tensor]:
    """Yield the bits of the float32 magnitudes, piece by piece: integers in the same order."""
    for piece in torch.split(x.detach().flatten(), GROUP_ELEMENTS):
        yield piece.float().abs().view(torch.int32)
