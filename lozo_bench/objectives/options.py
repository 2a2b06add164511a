"""Score the options of each example with a causal or a masked model.

Both kinds of model give one matrix of scores [B, K]. Training losses and evaluation metrics are
computed from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from lozo_bench.data.batch import Batch, ScoringOptions
from lozo_bench.engine.tensors import wide
from lozo_bench.models.answers import only_columns, only_positions
from lozo_bench.models.capabilities import own_option_mask, without_cache

Scorer = Callable[[Batch], Tensor]


def option_scorer(
    model: Any,
    scoring: ScoringOptions,
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
        words, token = None, batch.token
        cancels = batch.single_position and not probabilities
        if cancels and scoring.columns and batch.word is not None:
            words, token = batch.words, batch.word
        logits = _at_least_float32(_logits(model, call, batch, scoring, words, no_cache))
        if not cancels:
            logits = logits.log_softmax(-1)
        entry = (torch.arange(len(token), device=token.device)[:, None], batch.at, token)
        return _mean_by_option(logits[entry], batch)

    return score


def sum_log_probabilities(scores: Tensor, batch: Batch) -> Tensor:
    """Return the sum of log-probabilities over each option's tokens, given their means [B, K]."""
    return scores * _option_lengths(batch, scores)[:, :-1].clamp(min=1)


def _logits(
    model: Any,
    call: Callable[..., Any],
    batch: Batch,
    scoring: ScoringOptions,
    words: Tensor | None,
    no_cache: Mapping[str, bool],
) -> Tensor:
    """Return the logits at the positions that are read, [B, Q, size of vocabulary or of words]."""
    inputs: dict[str, Tensor | None] = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
    }
    if batch.block is not None:
        inputs["attention_mask"] = own_option_mask(batch.block, model.dtype)
        inputs["position_ids"] = batch.position_ids
    read = batch.read.flatten()
    with (
        only_positions(model, read) if scoring.positions else nullcontext(),
        nullcontext() if words is None else only_columns(model, words),
    ):
        logits: Tensor = call(**inputs, **no_cache).logits
    logits = logits.squeeze(1) if scoring.positions else logits.flatten(0, 1)[read]
    return logits.view(*batch.read.shape, -1)


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
