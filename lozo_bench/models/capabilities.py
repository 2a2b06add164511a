"""What a model's forward pass accepts."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor


def supports_packed_rows(model: Any) -> bool:
    """Return whether several options can share one row, behind one copy of their prompt.

    A mask and explicit positions then keep the options apart. That is impossible with flash
    attention, which accepts no such mask, and in models in which something other than full
    attention with explicit positions decides what a token sees: a sliding window, ALiBi, a
    recurrence or a convolution along the row. `probes.packs_rows` looks at what the model does.
    """
    config = model.config
    kinds = getattr(config, "layer_types", None) or []
    window = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    others = ("alibi", "attention_layers", "attention_types", "block_types", "layers_block_type")
    return (
        _accepts(model, "position_ids")
        and "flash" not in str(getattr(config, "_attn_implementation", None))
        and all(kind == "full_attention" for kind in kinds)
        and not window
        and not any(getattr(config, name, None) for name in others)
    )


def own_option_mask(block: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the mask that is added to attention scores, [R, 1, T, T].

    Tokens of an option attend to their prompt and to their own option only. Padding attends to the
    prompt, because a softmax over nothing is NaN. Only padding does not attend to itself.

    Args:
        block: [R, T], 0 in the prompt, k + 1 in option k, -1 in padding.
        dtype: the dtype of the mask.
    """
    T = block.shape[1]
    query, key = block[:, :, None], block[:, None, :]
    earlier = torch.ones(T, T, dtype=torch.bool, device=block.device).tril()
    seen = earlier & ((key == 0) | ((key == query) & (query > 0)))
    mask = torch.zeros(seen.shape, dtype=dtype, device=block.device)
    return mask.masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def without_cache(model: Any) -> dict[str, bool]:
    """Return the arguments that make a model keep no key-value cache; no token is generated."""
    return {"use_cache": False} if _accepts(model, "use_cache") else {}


def _accepts(model: Any, argument: str) -> bool:
    return argument in inspect.signature(model.forward).parameters
