"""How many passes a step makes, and the shapes of its micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from lozo_bench.config.build import build
from lozo_bench.config.schema import Config
from lozo_bench.data.collate import may_share
from lozo_bench.data.order import micro_batches
from lozo_bench.data.sets import Data
from lozo_bench.engine.fused import STACKED_TOKENS, STACKED_TOKENS_ON_GPU
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.packed import MOST_VERSIONS
from lozo_bench.engine.protocol import ScoredBatch
from lozo_bench.engine.score import Score
from lozo_bench.evaluation.evaluate import by_length
from lozo_bench.optimizers.base import Needs, Optimizer
from lozo_bench.randomness.draws import Draws
from lozo_bench.tasks.base import Encoded
from lozo_bench.training.rows import TrainingRows

_BATCHES, _EVALUATED = 12, 5  # so many batches are looked at, in training and in a set
_USUAL_FORWARDS = 2


@dataclass(frozen=True, slots=True)
class Part:
    """A micro-batch.

    Args:
        tokens: of its rows, padding included.
        read: positions whose logits the loss reads.
        words: how many words' logits are computed there; 0: all of the vocabulary.
    """

    tokens: int
    read: int
    words: int


@dataclass(frozen=True, slots=True)
class Step:
    """What a step asks for, in passes over its batch.

    Args:
        forwards: forward passes, those before a backward pass included.
        backwards: backward passes.
        known: whether the method was asked; otherwise the usual number is assumed.
    """

    forwards: float
    backwards: float
    known: bool = True


def step_of(config: Config, needs: Needs) -> Step:
    """Return the passes of a step, by letting the method make one on weights of a few numbers."""
    if needs.gradient and needs.directions is None and not needs.streams:
        return Step(1, 1)
    if needs.features:
        return Step(1, 0)
    X = {"weight": torch.zeros(64, 64), "bias": torch.zeros(64)}
    rows = config.batch_size
    try:
        optimizer: Optimizer = build(config.optimizer, "optimizer", InPlace(X), Draws(0))
        score = Score(
            InPlace(X), [], examples=rows, streams=lambda name: ScoredBatch(examples=rows)
        )
        report = optimizer.step(score)
    except Exception:  # a method may need a real model; the caller says that this is assumed
        return Step(_USUAL_FORWARDS, int(needs.gradient), known=False)
    return Step(max(1, report.forwards), report.backwards)


def batches(data: Data, config: Config, needs: Needs, size: int | None) -> list[list[Part]]:
    """Return the micro-batches of the first batches of a run."""
    rows = TrainingRows(
        len(data.train), config.batch_size, config.seed.value, Needs(batch=needs.batch)
    )
    epoch = -(-len(data.train) // config.batch_size)
    return [
        parts_of([data.train[i] for i in numbers], data, size)
        for numbers in islice(rows.batches(), min(_BATCHES, epoch))
    ]


def parts_of(examples: Sequence[Encoded], data: Data, size: int | None) -> list[Part]:
    """Return the micro-batches of a batch."""
    groups = micro_batches(examples, data.layout, size)
    return [_part([examples[i] for i in group], data) for group in groups]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The batches in which a set is evaluated.

    Args:
        parts: some of them, evenly from the shortest rows to the longest.
        count: how many there are.
    """

    parts: Sequence[Part] = ()
    count: int = 0


def evaluation_of(examples: Sequence[Encoded], data: Data, batch_size: int) -> Evaluation:
    """Return the batches in which a set is evaluated."""
    order = by_length(examples, range(len(examples)))
    count = -(-len(order) // batch_size)
    looked_at = {round(i * (count - 1) / max(1, _EVALUATED - 1)) for i in range(_EVALUATED)}
    parts = [
        _part([examples[i] for i in order[k * batch_size : (k + 1) * batch_size]], data)
        for k in sorted(looked_at)
        if count
    ]
    return Evaluation(parts, count)


def candidates_together(tokens: int, asked: int | None, candidates: float, on_gpu: bool) -> int:
    """Return how many candidates share a pass (see `lozo_bench.engine.fused`)."""
    if on_gpu:
        fits = min(MOST_VERSIONS, STACKED_TOKENS_ON_GPU // max(1, tokens))
    else:
        fits = STACKED_TOKENS // max(1, tokens)
    return int(min(max(1, asked or fits), max(1, candidates)))


def _part(examples: Sequence[Encoded], data: Data) -> Part:
    """Return the shape that `collate` gives these examples, without making the batch."""
    layout, scoring = data.layout, data.layout.scoring
    if layout.label_ids:
        rows, words = len(examples), len(set(layout.label_ids))
        longest, read = max(len(e.rows[0]) for e in examples), 1
    elif may_share(examples, layout):
        rows = len(examples)
        longest = max(e.answer[0][0] + _unshared(e) for e in examples)
        read = 1 + max(map(_unshared, examples))
        words = len({e.rows[k][-1] for e in examples for k in range(len(e.rows))})
    else:
        rows, words = sum(len(e.rows) for e in examples), 0
        longest = max(len(row) for e in examples for row in e.rows)
        read = max(sum(map(len, e.answer)) for e in examples)
    several = read == 1 and (layout.label_ids or len(examples[0].rows) > 1)
    positions = rows * (longest + layout.virtual_tokens)
    return Part(
        tokens=positions,
        read=len(examples) * read if scoring.positions else positions,
        words=words if scoring.columns and several else 0,
    )


def _unshared(example: Encoded) -> int:
    """Return how many tokens the options of an example have behind the prompt that they share."""
    return sum(len(answer) - 1 for answer in example.answer)
