"""Collate encoded examples into padded tensors.

The options of an example that share a prompt can be packed into one row behind a single copy of
the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lozo_bench.data.batch import Batch, BatchLayout
from lozo_bench.tasks.base import Encoded


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
