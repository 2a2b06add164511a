"""Scores of the options of each example, for causal and for masked models, and their loss.

Both kinds of model end in the same thing, a matrix of scores [B, K]; what is trained and what is
measured follow from it alike.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from lozo_bench.batches import Batch, Scoring
from lozo_bench.engine.answers import only_columns, only_positions
from lozo_bench.engine.tensors import wide

Scorer = Callable[[Batch], Tensor]


def option_scorer(
    model: Any,
    scoring: Scoring,
    forward: Callable[..., Any] | None = None,
    probabilities: bool = False,
) -> Scorer:
    """Score each option by the MEAN log-probability of its tokens, in float32 or wider.

    The mean, not the sum, in training and in testing (MeZO's large-model code; trap T12). Where
    every option is a single token read at one place, as label words at a mask are, the logarithm of
    the sum over the vocabulary is the same for all of them and cancels in softmax, loss and argmax:
    there the logits themselves are the scores (LM-BFF, MeZO's medium-model code), and with
    ``scoring.columns`` the other words' logits are not computed; but with ``probabilities`` scores
    are log-probabilities always, for losses that look at one option alone.

    ``forward`` is called in the model's place where something stands around it, as torch's DDP.
    An option that an example does not have, others having more, scores -inf.
    """
    call = model if forward is None else forward
    no_cache = without_cache(model)

    def score(batch: Batch) -> Tensor:
        words = None
        cancels = batch.alike and not probabilities
        if cancels and scoring.columns:
            words, token = torch.unique(batch.token, return_inverse=True)
        else:
            token = batch.token
        logits = _full_precision(_logits(model, call, batch, scoring, words, no_cache))
        if not cancels:
            logits = logits.log_softmax(-1)
        entry = (torch.arange(len(token), device=token.device)[:, None], batch.at, token)
        return _mean_by_option(logits[entry], batch)

    return score


def summed(scores: Tensor, batch: Batch) -> Tensor:
    """Sums of log-probabilities over each option's tokens, from their means [B, K]."""
    return scores * _lengths(batch, scores)[:, :-1].clamp(min=1)


def takes_packed_rows(model: Any) -> bool:
    """Whether options can stand behind one prompt in a row, parted by a mask and by positions.

    Not with flash attention, which has no mask to part them, nor where something else than full
    attention with explicit positions decides what a token sees: a sliding window, ALiBi, a
    recurrence or a convolution along the row.
    """
    config = model.config
    kinds = getattr(config, "layer_types", None) or []
    window = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    others = ("alibi", "attention_layers", "attention_types", "block_types", "layers_block_type")
    return (
        _takes(model, "position_ids")
        and "flash" not in str(getattr(config, "_attn_implementation", None))
        and all(kind == "full_attention" for kind in kinds)
        and not window
        and not any(getattr(config, name, None) for name in others)
    )


def without_cache(model: Any) -> dict[str, bool]:
    """What tells a causal model to keep no keys and values: there is no next token."""
    return {"use_cache": False} if _takes(model, "use_cache") else {}


def _takes(model: Any, argument: str) -> bool:
    return argument in inspect.signature(model.forward).parameters


def _logits(
    model: Any,
    call: Callable[..., Any],
    batch: Batch,
    scoring: Scoring,
    words: Tensor | None,
    no_cache: Mapping[str, bool],
) -> Tensor:
    """Logits [B, Q, vocabulary or words] of the positions that are read."""
    inputs: dict[str, Tensor | None] = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
    }
    if batch.block is not None:
        inputs["attention_mask"] = _own_option_only(batch.block, model.dtype)
        inputs["position_ids"] = batch.position_ids
    read = batch.read.flatten()
    with (
        only_positions(model, read) if scoring.positions else nullcontext(),
        nullcontext() if words is None else only_columns(model, words),
    ):
        logits: Tensor = call(**inputs, **no_cache).logits
    logits = logits.squeeze(1) if scoring.positions else logits.flatten(0, 1)[read]
    return logits.view(*batch.read.shape, -1)


def _own_option_only(block: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores, [R, 1, T, T]: an option sees its prompt and itself.

    ``block`` [R, T] is 0 in the prompt, k + 1 in option k, -1 in padding. Every token sees itself,
    padding too, because attention to nothing at all is not a number.
    """
    T = block.shape[1]
    query, key = block[:, :, None], block[:, None, :]
    earlier = torch.ones(T, T, dtype=torch.bool, device=block.device).tril()
    seen = earlier & ((key == 0) | (key == query))
    mask = torch.zeros(seen.shape, dtype=dtype, device=block.device)
    return mask.masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def _mean_by_option(values: Tensor, batch: Batch) -> Tensor:
    """Means [B, K] of the entries [B, P] of each option; what fills up belongs to none."""
    room = values.new_zeros(len(values), batch.options + 1)
    sums = room.scatter_add(1, batch.option, values)
    counts = _lengths(batch, values)
    means = sums[:, :-1] / counts[:, :-1].clamp(min=1)
    return means.masked_fill(counts[:, :-1] == 0, -torch.inf)


def _lengths(batch: Batch, like: Tensor) -> Tensor:
    """How many tokens each option has, [B, K + 1]; the last column are the entries that fill up."""
    room = like.new_zeros(batch.size, batch.options + 1)
    return room.scatter_add(1, batch.option, like.new_ones(batch.option.shape))


def _full_precision(logits: Tensor) -> Tensor:
    """At least float32: a difference of two half-precision losses has nothing left (trap T24)."""
    return logits.to(wide(logits.dtype))
