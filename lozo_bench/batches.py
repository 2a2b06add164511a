"""From encoded examples to padded tensors, and the order in which they come.

A batch carries which positions matter, so that objectives never look at the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lozo_bench.engine.draws import key_words
from lozo_bench.tasks.base import Encoded


@dataclass(frozen=True, slots=True)
class Batch:
    """B examples as R = B * options token rows, padded on the right to length T.

    ``input_ids`` and ``attention_mask`` are int64 [R, T]; ``answer`` is bool [R, T] and marks the
    positions that matter (see `Encoded`); ``labels`` is int64 [B]; ``tokens`` counts real tokens.
    """

    input_ids: Tensor
    attention_mask: Tensor
    answer: Tensor
    labels: Tensor
    tokens: int

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(
            self.input_ids.to(device),
            self.attention_mask.to(device),
            self.answer.to(device),
            self.labels.to(device),
            self.tokens,
        )


def collate(examples: Sequence[Encoded], pad_id: int) -> Batch:
    """Stack examples, row after row, padded to the longest."""
    rows = [row for example in examples for row in example.rows]
    answers = [positions for example in examples for positions in example.answer]
    shape = (len(rows), max(map(len, rows)))
    input_ids = torch.full(shape, pad_id)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    answer = torch.zeros(shape, dtype=torch.bool)
    for i, (row, positions) in enumerate(zip(rows, answers, strict=True)):
        input_ids[i, : len(row)] = torch.tensor(row)
        attention_mask[i, : len(row)] = 1
        answer[i, list(positions)] = True
    labels = torch.tensor([example.label for example in examples])
    return Batch(input_ids, attention_mask, answer, labels, sum(map(len, rows)))


def shuffled(count: int, batch_size: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of row numbers: every epoch a new permutation, the last batch may be short.

    The order of epoch e depends on (seed, e) only.
    """
    epoch = 0
    while True:
        key = key_words(seed, "order", str(epoch))
        order = np.random.Generator(np.random.Philox(key=list(key))).permutation(count)
        for start in range(0, count, batch_size):
            yield order[start : start + batch_size].tolist()
        epoch += 1


def in_order(
    examples: Sequence[Encoded], batch_size: int, pad_id: int
) -> Iterator[tuple[list[int], Batch]]:
    """Every example once, those of like length together; each batch with its row numbers."""
    order = sorted(range(len(examples)), key=lambda i: max(map(len, examples[i].rows)))
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        yield numbers, collate([examples[i] for i in numbers], pad_id)
