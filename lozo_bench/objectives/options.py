"""Scores of the options of each example, for causal and for masked models, and their loss.

Both kinds of model end in the same thing, a matrix of scores [B, K]; what is trained and what is
measured follow from it alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lozo_bench.batches import Batch

Scorer = Callable[[Batch], Tensor]


def causal_scorer(model: Any) -> Scorer:
    """Score each option by the MEAN log-probability of its tokens after the prompt.

    The mean, not the sum, in training and in testing (MeZO's large-model code; trap T12).
    """

    def score(batch: Batch) -> Tensor:
        logits = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        ).logits
        answer = batch.answer[:, 1:]
        log_probs = functional.log_softmax(_full_precision(logits[:, :-1][answer]), dim=-1)
        tokens = log_probs.gather(1, batch.input_ids[:, 1:][answer].unsqueeze(1)).squeeze(1)
        counts = answer.sum(1)
        row = torch.arange(len(answer), device=answer.device).repeat_interleave(counts)
        sums = torch.zeros(len(answer), dtype=tokens.dtype, device=tokens.device)
        return (sums.index_add(0, row, tokens) / counts).view(len(batch.labels), -1)

    return score


def masked_scorer(model: Any, label_ids: Sequence[int]) -> Scorer:
    """Score each label word by its logit at the mask token.

    The softmax of the loss then runs over the label words only (LM-BFF, MeZO's medium-model code).
    """

    def score(batch: Batch) -> Tensor:
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        return _full_precision(logits[batch.answer][:, list(label_ids)])

    return score


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean over examples of -log softmax(scores)[label]; scores [B, K], labels [B] -> scalar."""
    return functional.cross_entropy(scores, labels)


def _full_precision(logits: Tensor) -> Tensor:
    """At least float32: a difference of two half-precision losses has nothing left (trap T24)."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
