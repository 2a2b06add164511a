"""What a model's forward pass accepts."""

from __future__ import annotations

import inspect
from typing import Any


def supports_packed_rows(model: Any) -> bool:
    """Return whether several options can share one row, behind one copy of their prompt.

    A mask and explicit positions then keep the options apart. That is impossible with flash
    attention, which accepts no such mask, and in models in which something other than full
    attention with explicit positions decides what a token sees: a sliding window, ALiBi, a
    recurrence or a convolution along the row.
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


def without_cache(model: Any) -> dict[str, bool]:
    """Return the arguments that make a model keep no key-value cache; no token is generated."""
    return {"use_cache": False} if _accepts(model, "use_cache") else {}


def _accepts(model: Any, argument: str) -> bool:
    return argument in inspect.signature(model.forward).parameters
