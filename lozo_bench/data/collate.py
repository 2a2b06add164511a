"""Collate encoded examples into padded tensors, and choose the order of the examples.

A batch records at which positions tokens are predicted and which tokens these are, so objectives
read nothing else of the logits. The options of an example that share a prompt can be packed into
one row behind a single copy of the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lozo_bench.tasks.base import Encoded


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


@dataclass(slots=True)
class _Row:
    """One row before padding: its tokens, their position ids and their block numbers."""

    tokens: list[int]
    positions: list[int]
    blocks: list[int]


@dataclass(slots=True)
class _PreparedExample:
    """One example as rows, with its answer tokens.

    Attributes:
        rows: the rows of the example.
        entries: (row, position at which it is predicted, token id, option) of each answer token.
    """

    rows: list[_Row]
    entries: list[tuple[int, int, int, int]]

    @property
    def read_positions(self) -> list[tuple[int, int]]:
        """The distinct (row, position) at which tokens are predicted, in the entries' order."""
        return list(dict.fromkeys((row, position) for row, position, _, _ in self.entries))


def collate(
    examples: Sequence[Encoded], layout: BatchLayout, weights: Sequence[float] | None = None
) -> Batch:
    """Return a batch of the examples, padded to the longest row.

    Args:
        examples: the encoded examples.
        layout: how examples become rows.
        weights: factor of each example's loss; None: all factors are 1.
    """
    prepared = _prepare(examples, layout)
    rows = [row for example in prepared for row in example.rows]
    longest = max(len(row.tokens) for row in rows)
    packed = any(max(row.blocks, default=0) > 0 for row in rows)
    read = _read(prepared, longest, layout.virtual_tokens)
    at, token, option = _entries(prepared)
    single_position = read.shape[1] == 1 and token.shape[1] > 1
    # Here, because finding them on a GPU would make the host wait for it in every forward pass.
    words, word = torch.unique(token, return_inverse=True) if single_position else (None, None)
    return Batch(
        input_ids=_padded([row.tokens for row in rows], longest, layout.pad_id),
        attention_mask=_padded([[1] * len(row.tokens) for row in rows], longest, 0),
        read=read,
        at=at,
        token=token,
        option=option,
        labels=torch.tensor([example.label for example in examples]),
        options=len(layout.label_ids) or max(len(example.rows) for example in examples),
        single_position=single_position,
        tokens=_tokens(prepared),
        virtual_tokens=layout.virtual_tokens,
        position_ids=_padded([row.positions for row in rows], longest, 0) if packed else None,
        block=_padded([row.blocks for row in rows], longest, -1) if packed else None,
        weights=None if weights is None else torch.tensor(weights, dtype=torch.float64),
        words=words,
        word=word,
    )


def count_tokens(examples: Sequence[Encoded], layout: BatchLayout) -> int:
    """Return the number of tokens, without padding, of a batch of these examples."""
    return _tokens(_prepare(examples, layout))


def _prepare(examples: Sequence[Encoded], layout: BatchLayout) -> list[_PreparedExample]:
    if layout.label_ids:
        return [_at_the_mask(example, layout.label_ids) for example in examples]
    if may_share(examples, layout):
        return [_behind_one_prompt(example) for example in examples]
    return [_row_by_row(example) for example in examples]


def _tokens(prepared: Sequence[_PreparedExample]) -> int:
    return sum(len(row.tokens) for example in prepared for row in example.rows)


def _at_the_mask(example: Encoded, label_ids: Sequence[int]) -> _PreparedExample:
    """Lay out an example of a masked model: all label words are predicted at the one mask token."""
    ((position,),) = example.answer
    entries = [(0, position, token, k) for k, token in enumerate(label_ids)]
    return _PreparedExample([_whole_row(example.rows[0])], entries)


def _row_by_row(example: Encoded) -> _PreparedExample:
    """Lay out one row for each option; the position before a token predicts it."""
    entries = [
        (k, position - 1, example.rows[k][position], k)
        for k, answer in enumerate(example.answer)
        for position in answer
    ]
    return _PreparedExample([_whole_row(row) for row in example.rows], entries)


def _behind_one_prompt(example: Encoded) -> _PreparedExample:
    """Lay out one row: the prompt, then each option without its last token.

    The last token of an option is left out because no token is predicted after it.
    """
    start = example.answer[0][0]
    row = _whole_row(example.rows[0][:start])
    entries = []
    for k, option in enumerate(example.rows):
        here = len(row.tokens)  # the index of this option's first token in the row
        for j, position in enumerate(range(start, len(option))):
            entries.append((0, start - 1 if j == 0 else here + j - 1, option[position], k))
        row.tokens += option[start:-1]
        row.positions += range(start, len(option) - 1)
        row.blocks += [k + 1] * (len(option) - 1 - start)
    return _PreparedExample([row], entries)


def may_share(examples: Sequence[Encoded], layout: BatchLayout) -> bool:
    """Return whether the options of each example can share a row behind one prompt.

    They can if all rows of the example have the same prompt, each answer reaches from the end of
    the prompt to the end of its row, and ``layout`` allows it.
    """
    if not layout.scoring.share_prompt:
        return False
    for example in examples:
        start = example.answer[0][0]
        for row, answer in zip(example.rows, example.answer, strict=True):
            if row[:start] != example.rows[0][:start] or answer != tuple(range(start, len(row))):
                return False
            if len(answer) > 1 and not layout.packed:
                return False
    return True


def _whole_row(tokens: Sequence[int]) -> _Row:
    return _Row(list(tokens), list(range(len(tokens))), [0] * len(tokens))


def _read(prepared: Sequence[_PreparedExample], longest: int, virtual: int) -> Tensor:
    """Return the distinct positions to read, [B, Q]; a shorter list repeats its first position."""
    first_row = np.cumsum([0, *(len(example.rows) for example in prepared)])
    width = virtual + longest
    reads = [
        [
            (first_row[b] + row) * width + virtual + position
            for row, position in example.read_positions
        ]
        for b, example in enumerate(prepared)
    ]
    most = max(map(len, reads))
    return torch.tensor([[*read, *[read[0]] * (most - len(read))] for read in reads])


def _entries(prepared: Sequence[_PreparedExample]) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``at``, ``token`` and ``option`` of a `Batch`, [B, P] each."""
    most = max(len(example.entries) for example in prepared)
    options = 1 + max(option for example in prepared for *_, option in example.entries)
    at, tokens, of_option = [], [], []
    for example in prepared:
        place = {where: i for i, where in enumerate(example.read_positions)}
        at.append([place[row, position] for row, position, _, _ in example.entries])
        tokens.append([token for _, _, token, _ in example.entries])
        of_option.append([option for *_, option in example.entries])
    return _padded(at, most, 0), _padded(tokens, most, 0), _padded(of_option, most, options)


def _padded(rows: Sequence[Sequence[int]], length: int, filler: int) -> Tensor:
    return torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows])
