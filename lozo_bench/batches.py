"""From encoded examples to padded tensors, and the order in which they come.

A batch carries which positions matter and what is read there, so that objectives never look at the
rest. Options that share a prompt stand behind one copy of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lozo_bench.engine.draws import key_words
from lozo_bench.tasks.base import Encoded

# A pass of few tokens takes as long as one of about so many, the weights being read for either:
# at 184 tokens a bf16 product on an H200 is bound by arithmetic and not by memory.
PASS_COSTS_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Scoring:
    """What is saved in scoring; nothing here changes a loss.

    ``positions``: logits only where the loss needs them. ``columns``: and only of the words it
    compares. ``share_prompt``: one pass over the prompt for all options of an example.
    ``buckets``: a batch goes through in parts of like length.
    """

    positions: bool = True
    columns: bool = True
    share_prompt: bool = True
    buckets: bool = True


@dataclass(frozen=True, slots=True)
class Layout:
    """How examples become batches.

    ``pad_id`` pads rows on the right. ``label_ids`` are the words that a masked model compares at
    its mask; none for a causal model. ``packed`` allows options behind a shared prompt in one row,
    which takes attention that accepts a mask of its own. ``virtual_tokens`` stand in front of each
    row inside the model (prompt tuning): its logits have so many positions more.
    """

    pad_id: int
    label_ids: tuple[int, ...] = ()
    scoring: Scoring = Scoring()
    packed: bool = True
    virtual_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """B examples in R rows of T tokens, one example after another.

    ``input_ids`` and ``attention_mask`` are int64 [R, T]. Where rows hold several options behind
    one prompt, ``position_ids`` [R, T] restart for each, and ``block`` [R, T] is 0 in the prompt,
    k + 1 in option k and -1 in padding; else both are None.

    ``read`` [B, Q] says at which positions, counted through the rows, something is predicted. An
    answer token is one of P entries of its example: ``at`` [B, P] is its place among the Q,
    ``token`` [B, P] its id, ``option`` [B, P] which of the K options it belongs to; entries that
    only fill up have option K. ``alike`` tells that every option is one token, and all of an
    example are read at one place. ``labels`` [B]. ``weights`` [B] are what each example's loss
    counts, or None where all count alike. ``tokens`` counts real tokens.
    """

    input_ids: Tensor
    attention_mask: Tensor
    read: Tensor
    at: Tensor
    token: Tensor
    option: Tensor
    labels: Tensor
    options: int
    alike: bool
    tokens: int
    virtual_tokens: int = 0
    position_ids: Tensor | None = None
    block: Tensor | None = None
    weights: Tensor | None = None

    @property
    def size(self) -> int:
        """B, the number of examples."""
        return len(self.labels)

    @property
    def positions(self) -> int:
        """How many positions the model's logits have, through all rows."""
        return self.input_ids.numel() + self.virtual_tokens * len(self.input_ids)

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        moved = {name: x.to(device) for name, x in self._tensors().items() if name != "weights"}
        if self.weights is not None:  # Apple's GPUs have no float64
            exact = self.weights.float() if device.type == "mps" else self.weights
            moved["weights"] = exact.to(device)
        return replace(self, **moved)

    def repeat(self, copies: int) -> Batch:
        """The batch so many times over, one copy after another."""
        if copies == 1:
            return self
        changed = {
            name: x.repeat(copies, *[1] * (x.ndim - 1)) for name, x in self._tensors().items()
        }
        shift = torch.arange(copies, device=self.read.device) * self.positions
        changed["read"] += shift.repeat_interleave(self.size)[:, None]
        return replace(self, **changed)

    def _tensors(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


@dataclass(slots=True)
class _Row:
    """One row before it is padded: its tokens, their positions and blocks."""

    tokens: list[int]
    positions: list[int]
    blocks: list[int]


@dataclass(slots=True)
class _Laid:
    """One example as rows; ``entries`` are (row, position read, token, option)."""

    rows: list[_Row]
    entries: list[tuple[int, int, int, int]]

    @property
    def places(self) -> list[tuple[int, int]]:
        """The (row, position) that are read, each once, in the order of the entries."""
        return list(dict.fromkeys((row, position) for row, position, _, _ in self.entries))


def collate(
    examples: Sequence[Encoded], layout: Layout, weights: Sequence[float] | None = None
) -> Batch:
    """Stack examples, padded to the longest row; ``weights`` are what each one's loss counts."""
    laid = _lay(examples, layout)
    rows = [row for example in laid for row in example.rows]
    longest = max(len(row.tokens) for row in rows)
    packed = any(max(row.blocks, default=0) > 0 for row in rows)
    read = _read(laid, longest, layout.virtual_tokens)
    at, token, option = _entries(laid)
    return Batch(
        input_ids=_padded([row.tokens for row in rows], longest, layout.pad_id),
        attention_mask=_padded([[1] * len(row.tokens) for row in rows], longest, 0),
        read=read,
        at=at,
        token=token,
        option=option,
        labels=torch.tensor([example.label for example in examples]),
        options=len(layout.label_ids) or max(len(example.rows) for example in examples),
        alike=read.shape[1] == 1 and token.shape[1] > 1,
        tokens=_tokens(laid),
        virtual_tokens=layout.virtual_tokens,
        position_ids=_padded([row.positions for row in rows], longest, 0) if packed else None,
        block=_padded([row.blocks for row in rows], longest, -1) if packed else None,
        weights=None if weights is None else torch.tensor(weights, dtype=torch.float64),
    )


def count_tokens(examples: Sequence[Encoded], layout: Layout) -> int:
    """How many real tokens a batch of these has."""
    return _tokens(_lay(examples, layout))


def token_shares(examples: Sequence[Encoded]) -> list[float]:
    """What each example's mean loss counts, so that the mean over the batch is that over tokens.

    With n_i answer tokens in example i of B, that is n_i B / sum of all n.
    """
    tokens = [len(example.answer[example.label]) for example in examples]
    return [count * len(tokens) / sum(tokens) for count in tokens]


def grouped(
    examples: Sequence[Encoded], layout: Layout, at_most: int | None = None
) -> list[list[int]]:
    """Which examples of a batch go through the model together: those of like length.

    ``at_most`` so many at once (micro-batches); None: as many as there are.
    """
    if not examples:
        return []
    if layout.scoring.buckets:
        groups = _buckets([max(map(len, example.rows)) for example in examples])
    else:
        groups = [list(range(len(examples)))]
    size = at_most or len(examples)
    return [group[i : i + size] for group in groups for i in range(0, len(group), size)]


def permuted(count: int, seed: int, role: str, name: str = "") -> list[int]:
    """Return a permutation of the row numbers below ``count`` that depends on its key only."""
    key = key_words(seed, role, name)
    order: list[int] = (
        np.random.Generator(np.random.Philox(key=list(key))).permutation(count).tolist()
    )
    return order


def shuffled(count: int, batch_size: int, seed: int, role: str = "order") -> Iterator[list[int]]:
    """Yield batches of row numbers for ever: a new permutation each epoch, whose rest is short.

    The order of epoch e depends on (seed, role, e) only.
    """
    epoch = 0
    while True:
        order = permuted(count, seed, role, str(epoch))
        for start in range(0, count, batch_size):
            yield order[start : start + batch_size]
        epoch += 1


def in_order(
    examples: Sequence[Encoded], batch_size: int, layout: Layout
) -> Iterator[tuple[list[int], Batch]]:
    """Every example once, those of like length together; each batch with its row numbers."""
    order = sorted(range(len(examples)), key=lambda i: max(map(len, examples[i].rows)))
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        yield numbers, collate([examples[i] for i in numbers], layout)


def _lay(examples: Sequence[Encoded], layout: Layout) -> list[_Laid]:
    if layout.label_ids:
        return [_at_the_mask(example, layout.label_ids) for example in examples]
    if _may_share(examples, layout):
        return [_behind_one_prompt(example) for example in examples]
    return [_row_by_row(example) for example in examples]


def _tokens(laid: Sequence[_Laid]) -> int:
    return sum(len(row.tokens) for example in laid for row in example.rows)


def _at_the_mask(example: Encoded, label_ids: Sequence[int]) -> _Laid:
    """A masked model: every label word is read at the one mask."""
    ((position,),) = example.answer
    entries = [(0, position, token, k) for k, token in enumerate(label_ids)]
    return _Laid([_whole_row(example.rows[0])], entries)


def _row_by_row(example: Encoded) -> _Laid:
    """A row for each option; a token is predicted one position before it stands."""
    entries = [
        (k, position - 1, example.rows[k][position], k)
        for k, answer in enumerate(example.answer)
        for position in answer
    ]
    return _Laid([_whole_row(row) for row in example.rows], entries)


def _behind_one_prompt(example: Encoded) -> _Laid:
    """One row: the prompt, then each option without its last token, which predicts nothing."""
    start = example.answer[0][0]
    row = _whole_row(example.rows[0][:start])
    entries = []
    for k, option in enumerate(example.rows):
        here = len(row.tokens)  # where this option's first token comes to stand
        for j, position in enumerate(range(start, len(option))):
            entries.append((0, start - 1 if j == 0 else here + j - 1, option[position], k))
        row.tokens += option[start:-1]
        row.positions += range(start, len(option) - 1)
        row.blocks += [k + 1] * (len(option) - 1 - start)
    return _Laid([row], entries)


def _may_share(examples: Sequence[Encoded], layout: Layout) -> bool:
    """Whether every example's options go on from one prompt to the end of their rows."""
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


def _read(laid: Sequence[_Laid], longest: int, virtual: int) -> Tensor:
    """[B, Q]: the positions of each example, each once, its first again where it has fewer."""
    first_row = np.cumsum([0, *(len(example.rows) for example in laid)])
    width = virtual + longest
    reads = [
        [(first_row[b] + row) * width + virtual + position for row, position in example.places]
        for b, example in enumerate(laid)
    ]
    most = max(map(len, reads))
    return torch.tensor([[*read, *[read[0]] * (most - len(read))] for read in reads])


def _entries(laid: Sequence[_Laid]) -> tuple[Tensor, Tensor, Tensor]:
    """Of each answer token, [B, P] each: its place among the read ones, its id, its option."""
    most = max(len(example.entries) for example in laid)
    options = 1 + max(option for example in laid for *_, option in example.entries)
    at, tokens, of_option = [], [], []
    for example in laid:
        place = {where: i for i, where in enumerate(example.places)}
        at.append([place[row, position] for row, position, _, _ in example.entries])
        tokens.append([token for _, _, token, _ in example.entries])
        of_option.append([option for *_, option in example.entries])
    return _padded(at, most, 0), _padded(tokens, most, 0), _padded(of_option, most, options)


def _padded(rows: Sequence[Sequence[int]], length: int, filler: int) -> Tensor:
    return torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows])


def _buckets(lengths: Sequence[int]) -> list[list[int]]:
    """Example numbers in groups of like length, so that padding and passes cost least together.

    The exact minimum of sum(examples * longest) + 256 for each group over all ways to cut the
    examples, sorted by length; numbers stay in order within a group.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    best: list[tuple[int, int]] = [(0, 0)]  # cost of the first n, and where their last group starts
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        best.append(
            min(
                (best[start][0] + (end - start) * longest + PASS_COSTS_TOKENS, start)
                for start in range(end)
            )
        )
    groups, end = [], len(order)
    while end:
        start = best[end][1]
        groups.append(sorted(order[start:end]))
        end = start
    return groups[::-1]
