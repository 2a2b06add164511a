"""How much of each weight a random mask keeps, from the magnitudes of all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from lozo_bench.engine.gaussian import GROUP_ELEMENTS

_UPPER, _LOWER = 2**15, 2**16  # a magnitude's 31 bits: which bin, and where in it


def global_keep_rates(X: Mapping[str, Tensor], sparsity: float) -> dict[str, float]:
    """1 - s_l for each weight l, s_l being its share of the smallest ``sparsity`` of all elements.

    Elements as large as the largest of these count in part, all to the same one, so that the rates'
    mean over all elements is 1 - ``sparsity``. Magnitudes are compared as float32, by their bits;
    nothing is sorted or sampled, and the rates are the same on every device.

    A weight of zeros, as LoRA's B or a fresh bias, has no magnitudes to go by: it keeps
    1 - ``sparsity``, and the others are ranked without it. Otherwise B would never move.
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
    """The first bin with which ``wanted`` elements are reached, and how many those before have."""
    if not counts:
        return 0, 0
    together = torch.stack(list(counts.values())).sum(0)
    reached = together.cumsum(0)
    found = int((reached < math.ceil(wanted)).sum())
    return found, int(reached[found] - together[found])


def _counts(
    X: Mapping[str, Tensor], bins: Callable[[Tensor], Tensor], count: int
) -> dict[str, Tensor]:
    """How many elements of each weight are in each of ``count`` bins; int64 on the CPU."""
    return {
        name: torch.stack([bins(bits).bincount(minlength=count) for bits in _bits(x)]).sum(0).cpu()
        for name, x in X.items()
    }


def _bits(x: Tensor) -> Iterator[Tensor]:
    """Bits of the magnitudes as float32, piece by piece: integers in the order of magnitudes."""
    for piece in torch.split(x.detach().flatten(), GROUP_ELEMENTS):
        yield piece.float().abs().view(torch.int32)
