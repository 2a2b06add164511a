"""Loading a tokenizer that starts its sequences with the token it is told to."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lozo_bench.errors import UserError, bad_value
from lozo_bench.models.reading import reading


def load_tokenizer(path: str, bos_token: str | None) -> PreTrainedTokenizerBase:
    """The fast tokenizer of ``path``, with a padding token and, if told, another first token.

    Where the model has no padding token, the end-of-text token pads: those positions are covered
    by the attention mask, so nothing is learnt from them. ``bos_token`` replaces the first token
    of every sequence (the published OPT runs use ``<s>`` for OPT's own ``</s>``; spec lozo_mezo
    3.3, T1). A model may well have none: causal sequences then start with the text.

    Raises UserError for missing or damaged files, for a tokenizer without character offsets (T19),
    and where ``bos_token`` is not in the vocabulary or does not come first.
    """
    tokenizer = _read(path)
    if bos_token is not None:
        # transformers would add an unknown token, with an id that has no trained embedding.
        if bos_token not in tokenizer.get_vocab():
            raise bad_value("model.bos_token", bos_token, f"a token in the vocabulary of {path}")
        # Assigning tokenizer.bos_token_id changes no encoding in transformers 5, and bos_token
        # alone is ignored where a tokenizer.json carries its own template; together they work.
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
    # Absent files are no error to transformers 5: it makes a tokenizer without any words.
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise UserError(
            f"model.path: {path} holds no tokenizer (tokenizer.json, or vocab.json with "
            "merges.txt); what to do: fetch the whole model again"
        )
    if not tokenizer.is_fast:
        raise UserError(
            f"model.path: {path} has only a slow tokenizer, which gives no character offsets; "
            "allowed: one with a tokenizer.json"
        )
    return tokenizer


def _check_first(tokenizer: PreTrainedTokenizerBase, bos_token: str) -> None:
    wanted = tokenizer.convert_tokens_to_ids(bos_token)
    ids = tokenizer("a")["input_ids"]
    if ids[:1] != [wanted]:
        raise bad_value(
            "model.bos_token",
            bos_token,
            f"a token that this tokenizer can start with; it encodes 'a' as {ids}, not "
            f"[{wanted}, ...]",
        )
