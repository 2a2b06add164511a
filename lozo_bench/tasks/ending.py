"""The special tokens that a tokenizer puts behind every text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def ending_tokens(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return how many special tokens, such as an end token, follow every text.

    A model that has read an end token does not continue the text before it.
    """
    special: list[int] = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
    return special[::-1].index(0) if 0 in special else 0
