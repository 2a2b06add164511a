"""Load a tokenizer that begins sequences with the configured token."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lozo_bench.errors import UserError, bad_value
from lozo_bench.models.reading import reading


def load_tokenizer(path: str, bos_token: str | None) -> PreTrainedTokenizerBase:
    """Load the fast tokenizer of ``path`` and make sure that it has a padding token.

    If the tokenizer has no padding token, the end-of-text token is used. The attention mask hides
    the padded positions, so nothing is learnt from them.

    Args:
        path: a folder or a hub name.
        bos_token: the token that every sequence begins with; None keeps the tokenizer's own first
            token, if it has one (GPT-2 has none: its sequences begin with the text). The published
            OPT runs begin with ``<s>`` instead of OPT's own ``</s>`` (MeZO,
            large_models/run.py:174-176, ``tokenizer.bos_token_id = 0``).

    Raises:
        UserError: the files are missing or damaged; ``bos_token`` is not in the vocabulary or does
            not come first; or the tokenizer gives no character offsets. Offsets say exactly which
            tokens belong to an option: counting tokens with and without it, as MeZO's code does,
            can be off by one if the tokenizer merges characters across the boundary.
    """
    tokenizer = _read(path)
    if bos_token is not None:
        # transformers would add an unknown token under a new id that has no trained embedding.
        if bos_token not in tokenizer.get_vocab():
            raise bad_value("model.bos_token", bos_token, f"a token in the vocabulary of {path}")
        # In transformers 5, assigning tokenizer.bos_token_id changes no encoding, and bos_token
        # alone is ignored if tokenizer.json has its own template. With add_bos_token it works.
        tokenizer = _read(path, bos_token=bos_token, add_bos_token=True)
        _check_first(tokenizer, bos_token)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise UserError(
                f"model.path: the tokenizer of {path} has neither a pad nor an eos token"
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _read(path: str, **changes: Any) -> PreTrainedTokenizerBase:
    with reading(path):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            path, trust_remote_code=False, **changes
        )
    # If the files are absent, transformers 5 raises no error but makes a tokenizer without words.
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise UserError(
            f"model.path: {path} contains no tokenizer (tokenizer.json, or vocab.json with "
            "merges.txt); what to do: download the whole model again"
        )
    if not tokenizer.is_fast:
        raise UserError(
            f"model.path: {path} has only a slow tokenizer, which gives no character offsets; "
            "allowed: a model that has a tokenizer.json"
        )
    return tokenizer


def _check_first(tokenizer: PreTrainedTokenizerBase, bos_token: str) -> None:
    wanted = tokenizer.convert_tokens_to_ids(bos_token)
    ids = tokenizer("a")["input_ids"]
    if ids[:1] != [wanted]:
        raise bad_value(
            "model.bos_token",
            bos_token,
            f"a token that this tokenizer puts first; it encodes 'a' as {ids}, not [{wanted}, ...]",
        )
