"""Load a tokenizer that begins sequences with the configured token."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lozo_bench.errors import UserError, bad_value
from lozo_bench.models.reading import reading

log = logging.getLogger(__name__)


def load_tokenizer(
    path: str, bos_token: str | None, finds_end: bool = False
) -> PreTrainedTokenizerBase:
    """Load the fast tokenizer of ``path`` and make sure that it has a padding token.

    A text always has the same tokens: dropout of merges is switched off.

    Args:
        path: a folder or a hub name.
        bos_token: the token that every sequence begins with; None keeps the tokenizer's own first
            token, if it has one (GPT-2 has none: its sequences begin with the text). The published
            OPT runs begin with ``<s>`` instead of OPT's own ``</s>`` (MeZO,
            large_models/run.py:174-176, ``tokenizer.bos_token_id = 0``).
        finds_end: whether the model finds the end of a row by the padding token's id, as a
            classifier does.

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
    _switch_off_dropout(tokenizer, path)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = _stand_in_for_padding(tokenizer, path, finds_end)
    return tokenizer


def _read(path: str, **changes: Any) -> PreTrainedTokenizerBase:
    try:
        with reading(path):
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                path, trust_remote_code=False, **changes
            )
    except UserError as error:
        if any(package in str(error.__cause__) for package in ("tiktoken", "sentencepiece")):
            raise _needs_conversion(path) from error
        raise
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


def _needs_conversion(path: str) -> UserError:
    folder, download = path, ""
    if not Path(path).is_dir():
        folder, download = "DIR", f"`hf download {path} --local-dir DIR`, set model.path=DIR, and "
    return UserError(
        f"model.path: {path} has no tokenizer.json, and its tokenizer.model cannot be read without "
        "the packages sentencepiece and protobuf (tiktoken, if it is a tiktoken file); what to do: "
        f"{download}pip install them, or write tokenizer.json on a machine that has them with "
        f'`python -c "from transformers import AutoTokenizer as T; T.from_pretrained({folder!r})'
        f'.save_pretrained({folder!r})"`'
    )


def _switch_off_dropout(tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    """Make the tokenizer split a text in the same way every time.

    With BPE dropout (arXiv 1910.13267) it drops merges at random, from a generator that no seed
    reaches. Sentencepiece's sampling exists in slow tokenizers only, which are refused.
    """
    model = tokenizer.backend_tokenizer.model
    if dropout := getattr(model, "dropout", None):
        model.dropout = None
        log.warning(
            "the tokenizer of %s splits texts at random (dropout=%s in tokenizer.json); this is "
            "switched off, so that a text always has the same tokens",
            path,
            dropout,
        )


def _stand_in_for_padding(tokenizer: PreTrainedTokenizerBase, path: str, finds_end: bool) -> str:
    """Return the token that pads rows of a tokenizer without a padding token.

    It is the end-of-text token, if there is one. The attention mask hides padded positions, so
    that any other token gives the same logits. Only a model that finds the end of a row by the
    token's id needs one that no text ends with.
    """
    if token := tokenizer.eos_token or tokenizer.bos_token:
        return str(token)
    if finds_end:
        raise UserError(
            f"model.path: the tokenizer of {path} has no pad, eos or bos token, and a classifier "
            "finds the end of a row by its padding; what to do: set pad_token in "
            "tokenizer_config.json to a token of the vocabulary that no text ends with"
        )
    return str(tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0))


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Write the tokenizer to the folder ``out``.

    A word that stands in for padding is not written: whoever reads it would make it a special token
    and drop it from texts.
    """
    pad = tokenizer.pad_token
    if pad not in tokenizer.get_added_vocab():
        tokenizer.pad_token = None
    tokenizer.save_pretrained(out)
    tokenizer.pad_token = pad


def _check_first(tokenizer: PreTrainedTokenizerBase, bos_token: str) -> None:
    wanted = tokenizer.convert_tokens_to_ids(bos_token)
    ids = tokenizer("a")["input_ids"]
    if ids[:1] != [wanted]:
        raise bad_value(
            "model.bos_token",
            bos_token,
            f"a token that this tokenizer puts first; it encodes 'a' as {ids}, not [{wanted}, ...]",
        )
