"""Make room for virtual tokens in front of every row: in masks, positions and caches.

`prompt.py` and `deep_prompt.py` register a hook that runs before the model and changes its
arguments. What the two hooks have in common is here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def row_begins(options: dict[str, Any]) -> bool:
    """Return whether the call starts new rows: no cache holds their beginning already.

    A cache that holds the beginning of a row contains the virtual tokens, too.
    """
    cache = options.get("past_key_values")
    return cache is None or cache.get_seq_length() == 0


def make_room(options: dict[str, Any], tokens: int) -> None:
    """Extend the mask on the left and shift the positions, in place.

    Mask and positions count the virtual tokens in every call, even if a cache holds them.
    """
    if (mask := options.get("attention_mask")) is not None:
        options["attention_mask"] = _extend_mask(mask, tokens)
    if (positions := options.get("position_ids")) is not None:
        positions = positions + tokens
        if row_begins(options):
            first = torch.arange(tokens, device=positions.device)
            positions = torch.cat([first.expand(len(positions), -1), positions], dim=1)
        options["position_ids"] = positions


def _extend_mask(mask: Tensor, tokens: int) -> Tensor:
    """Extend a mask on the left by virtual tokens.

    All row tokens attend to the virtual tokens; each virtual token attends to itself and to the
    virtual tokens before it.

    Args:
        mask: [R, T] of ones and zeros, or [R, 1, T, T]: either boolean, true where a token is
            attended to, or floating point, added to the attention scores.
        tokens: the number of virtual tokens.
    """
    if mask.ndim == 2:
        return torch.cat([mask.new_ones(len(mask), tokens), mask], dim=1)
    T = tokens + mask.shape[-1]
    hidden = False if mask.dtype is torch.bool else torch.finfo(mask.dtype).min
    seen = mask.dtype is torch.bool
    wide = mask.new_full((*mask.shape[:2], T, T), hidden)
    wide[..., tokens:, tokens:] = mask
    earlier = torch.ones(T, tokens, dtype=torch.bool, device=mask.device).tril()
    wide[..., :tokens] = wide[..., :tokens].masked_fill(earlier, seen)
    return wide
