"""Check that a model has an embedding for every token of its tokenizer."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lozo_bench.errors import UserError
from lozo_bench.models.check import listed, word_embeddings

_MAX_ADDED = 100  # more tokens than anybody adds by hand


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    """Check that the model has an embedding for every token.

    Args:
        model: the loaded model; it may have more embeddings than there are tokens.
        tokenizer: its tokenizer.
        path: where both were loaded from.

    Raises:
        UserError: a token has no embedding. The message says how to mend it if the tokens were
            added to the tokenizer alone.
    """
    rows = word_embeddings(model).shape[0]
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    without = sorted((index, token) for token, index in vocabulary.items() if index >= rows)
    if not without:
        return
    what = (
        f"model.path: the tokenizer has {len(tokenizer)} tokens, but the model has embeddings for "
        f"{rows}"
    )
    added = tokenizer.get_added_vocab()
    if len(without) > _MAX_ADDED or any(token not in added for _, token in without):
        raise UserError(
            f"{what}; they do not belong to the same model; what to do: download both again"
        )
    command = _resize_command(model, path, without[-1][0] + 1)
    named = listed([f"{token!r} ({index})" for index, token in without])
    verb = "was" if len(without) == 1 else "were"
    raise UserError(
        f"{what}: {named} {verb} added to the tokenizer alone; what to do: give each an "
        f"embedding with `{command}`, and set model.path to the new folder"
        f"{_other_padding(tokenizer, rows, len(without))}"
    )


def _resize_command(model: PreTrainedModel, path: str, rows: int) -> str:
    new = f"{Path(path).name}-resized"
    return (
        f'python -c "from transformers import {type(model).__name__} as M, AutoTokenizer as T; '
        f"m, t = M.from_pretrained({path!r}), T.from_pretrained({path!r}); "
        f"m.resize_token_embeddings({rows}); m.save_pretrained({new!r}); "
        f't.save_pretrained({new!r})"'
    )


def _other_padding(tokenizer: PreTrainedTokenizerBase, rows: int, without: int) -> str:
    """Return another remedy, for a token that only pads: it needs no embedding of its own."""
    pad, others = tokenizer.pad_token_id, (tokenizer.eos_token, tokenizer.unk_token)
    known = [x for x in others if x and tokenizer.get_vocab()[x] < rows]
    if without > 1 or pad is None or pad < rows or not known:
        return ""
    return (
        "; or, as it only pads, remove it from tokenizer.json and tokenizer_config.json, and set "
        f"pad_token to {known[0]!r} there"
    )
