"""Score the options of each example with a causal or a masked model.

Both kinds of model give one matrix of scores [B, K]. Training losses and evaluation metrics are
computed from it.
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
    """Return a function that scores each option by the MEAN log-probability of its tokens.

    The scores are [B, K], float32 or wider. The mean, not the sum, is used in training and in
    testing (MeZO, large_models/utils.py:31-102 and run.py:204-311).

    If every option is a single token read at the same position, like label words at a mask, the
    log-sum-exp over the vocabulary is the same for all options and cancels in softmax, loss and
    argmax. Then the logits themselves are the scores (as in LM-BFF and MeZO's
    medium_models/src/models.py), and with ``scoring.columns`` the other words' logits are not
    computed.

    If an example has fewer options than others in the batch, its absent options score -inf.

    Args:
        model: a causal or masked language model.
        scoring: which shortcuts are used; none of them changes a loss.
        forward: called instead of the model if something wraps it, such as torch's DDP.
        probabilities: always return log-probabilities, for losses that use one option alone.
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
        logits = _at_least_float32(_logits(model, call, batch, scoring, words, no_cache))
        if not cancels:
            logits = logits.log_softmax(-1)
        entry = (torch.arange(len(token), device=token.device)[:, None], batch.at, token)
        return _mean_by_option(logits[entry], batch)

    return score


def summed(scores: Tensor, batch: Batch) -> Tensor:
    """Return the sum of log-probabilities over each option's tokens, given their means [B, K]."""
    return scores * _option_lengths(batch, scores)[:, :-1].clamp(min=1)


def takes_packed_rows(model: Any) -> bool:
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


def _logits(
    model: Any,
    call: Callable[..., Any],
    batch: Batch,
    scoring: Scoring,
    words: Tensor | None,
    no_cache: Mapping[str, bool],
) -> Tensor:
    """Return the logits at the positions that are read, [B, Q, size of vocabulary or of words]."""
    inputs: dict[str, Tensor | None] = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
    }
    if batch.block is not None:
        inputs["attention_mask"] = _own_option_mask(batch.block, model.dtype)
        inputs["position_ids"] = batch.position_ids
    read = batch.read.flatten()
    with (
        only_positions(model, read) if scoring.positions else nullcontext(),
        nullcontext() if words is None else only_columns(model, words),
    ):
        logits: Tensor = call(**inputs, **no_cache).logits
    logits = logits.squeeze(1) if scoring.positions else logits.flatten(0, 1)[read]
    return logits.view(*batch.read.shape, -1)


def _own_option_mask(block: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the mask that is added to attention scores, [R, 1, T, T].

    Tokens of an option attend to their prompt and to their own option only. Every token attends to
    itself, even padding, because a softmax over nothing is NaN.

    Args:
        block: [R, T], 0 in the prompt, k + 1 in option k, -1 in padding.
        dtype: the dtype of the mask.
    """
    T = block.shape[1]
    query, key = block[:, :, None], block[:, None, :]
    earlier = torch.ones(T, T, dtype=torch.bool, device=block.device).tril()
    seen = earlier & ((key == 0) | (key == query))
    mask = torch.zeros(seen.shape, dtype=dtype, device=block.device)
    return mask.masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def _mean_by_option(values: Tensor, batch: Batch) -> Tensor:
    """Return the mean of each option's entries: [B, P] -> [B, K].

    Entries that only fill up a row have option K; their column is dropped.
    """
    zeros = values.new_zeros(len(values), batch.options + 1)
    sums = zeros.scatter_add(1, batch.option, values)
    counts = _option_lengths(batch, values)
    means = sums[:, :-1] / counts[:, :-1].clamp(min=1)
    return means.masked_fill(counts[:, :-1] == 0, -torch.inf)


def _option_lengths(batch: Batch, like: Tensor) -> Tensor:
    """Return how many tokens each option has, [B, K + 1]; the last column counts the filler."""
    zeros = like.new_zeros(batch.size, batch.options + 1)
    return zeros.scatter_add(1, batch.option, like.new_ones(batch.option.shape))


def _at_least_float32(logits: Tensor) -> Tensor:
    """Convert logits to at least float32.

    The two losses of a zeroth-order step differ by about eps times a directional derivative, which
    is less than half precision can resolve.
    """
    return logits.to(wide(logits.dtype))
