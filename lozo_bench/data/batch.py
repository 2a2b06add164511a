"""A batch of padded tokens, and the settings by which examples become one.

A batch records at which positions tokens are predicted and which tokens these are, so objectives
read nothing else of the logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """Which savings are used to compute the losses of a batch; none of them changes a loss.

    Attributes:
        positions: compute logits only at the positions that the loss reads.
        columns: compute logits only of the words that the loss compares.
        share_prompt: run the model once over the prompt for all options of an example.
        buckets: split a batch into micro-batches of examples of similar length.
    """

    positions: bool = True
    columns: bool = True
    share_prompt: bool = True
    buckets: bool = True


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """How examples become batches.

    Attributes:
        pad_id: token id that pads rows on the right.
        label_ids: the words that a masked model compares at its mask token; empty for a causal
            model.
        scoring: which savings are used.
        packed: whether options of several tokens may share a row behind one prompt, which needs an
            attention implementation that accepts a custom mask.
        virtual_tokens: how many tokens the model itself inserts before each row (prompt tuning);
            its logits have this many more positions per row.
    """

    pad_id: int
    label_ids: tuple[int, ...] = ()
    scoring: ScoringOptions = ScoringOptions()
    packed: bool = True
    virtual_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """B examples in R rows of T tokens; the rows of one example follow one another.

    Each answer token is one of P entries of its example. ``at``, ``token`` and ``option`` describe
    the entries; examples with fewer entries are padded with entries of the option K.

    Attributes:
        input_ids: int64 [R, T].
        attention_mask: int64 [R, T], 1 for tokens and 0 for padding.
        read: int64 [B, Q], the Q positions of each example at which tokens are predicted, as
            indices into the flattened rows, virtual tokens included.
        at: int64 [B, P], at which of the Q positions each answer token is predicted.
        token: int64 [B, P], id of each answer token.
        option: int64 [B, P], which of the K options each answer token belongs to.
        labels: int64 [B], the correct option of each example.
        options: K, the number of options.
        single_position: whether every option is one token and all options of an example are
            predicted at the same position.
        tokens: number of tokens without padding.
        virtual_tokens: number of tokens that the model inserts before each row.
        position_ids: int64 [R, T], which restart for each option; None unless rows hold several
            options behind one prompt.
        block: int64 [R, T], 0 in the prompt, k + 1 in option k and -1 in padding; None like
            ``position_ids``.
        weights: float64 [B], factor of each example's loss; None if all factors are 1.
        words: int64 [C], the distinct tokens of ``token``, if ``single_position``; else None.
        word: int64 [B, P], which of these words each answer token is; None like ``words``.
    """

    input_ids: Tensor
    attention_mask: Tensor
    read: Tensor
    at: Tensor
    token: Tensor
    option: Tensor
    labels: Tensor
    options: int
    single_position: bool
    tokens: int
    virtual_tokens: int = 0
    position_ids: Tensor | None = None
    block: Tensor | None = None
    weights: Tensor | None = None
    words: Tensor | None = None
    word: Tensor | None = None

    @property
    def size(self) -> int:
        """B, the number of examples."""
        return len(self.labels)

    @property
    def positions(self) -> int:
        """The number of positions of the model's logits in all rows, virtual tokens included."""
        return self.input_ids.numel() + self.virtual_tokens * len(self.input_ids)

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on another device."""
        moved = {name: x.to(device) for name, x in self.tensors().items() if name != "weights"}
        if self.weights is not None:  # Apple's GPUs do not support float64
            exact = self.weights.float() if device.type == "mps" else self.weights
            moved["weights"] = exact.to(device)
        return replace(self, **moved)

    def repeat(self, copies: int) -> Batch:
        """Return a batch that contains ``copies`` copies of this one, one after another."""
        if copies == 1:
            return self
        changed = {
            name: x.repeat(copies, *[1] * (x.ndim - 1))
            for name, x in self.tensors().items()
            if name != "words"
        }
        shift = torch.arange(copies, device=self.read.device) * self.positions
        changed["read"] += shift.repeat_interleave(self.size)[:, None]
        return replace(self, **changed)

    def with_tensors(self, tensors: Mapping[str, Any]) -> Batch:
        """Return a batch with these tensors, by name; the rest is as it is."""
        return replace(self, **tensors)

    def tensors(self) -> dict[str, Any]:
        """Return all tensors, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}
