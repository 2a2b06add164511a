"""The modes that are timed against each other, and the batch that they all use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.published import Published
from lozo_bench.data.batch import BatchLayout
from lozo_bench.data.order import micro_batches
from lozo_bench.engine.fold import Folder
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.engine.subspace import along
from lozo_bench.engine.tensors import wide
from lozo_bench.errors import UserError
from lozo_bench.objectives.losses import OptionObjective
from lozo_bench.objectives.options import option_scorer
from lozo_bench.optimizers.low_rank import LowRankDirections
from lozo_bench.optimizers.lozo import Lozo
from lozo_bench.randomness.draws import Draws
from lozo_bench.tasks.base import Encoded

FLOOR = "two_forwards"
NU = 50
# So small that the steps of one mode do not change the weights for the next one.
LR, EPS = 1e-9, 1e-3
_FIRST_WORD = 5  # in every family the smaller ids are special tokens


@dataclass(frozen=True, slots=True)
class Work:
    """A model, its weights ``X``, and one batch in two forms.

    ``plain`` computes the logits of every position, ``answer_only`` only those that the loss needs.
    ``tokens`` is the number of tokens in the plain batch.
    """

    model: nn.Module
    X: Mapping[str, Tensor]
    plain: Sequence[MicroBatch]
    answer_only: Sequence[MicroBatch]
    tokens: int


@dataclass(frozen=True, slots=True)
class Running:
    """A mode that is ready to run; ``step`` is the call that is timed.

    In modes that accumulate updates beside the weights, ``fold`` adds them to the weights, which is
    needed once in many steps, and ``refill`` accumulates as many as a fold can have. ``after`` must
    be called after each step, and is not timed. ``warm_up`` is how many steps are needed before the
    first one that is timed.
    """

    step: Callable[[], object]
    fold: Callable[[], object] | None = None
    refill: Callable[[], object] | None = None
    after: Callable[[], object] = lambda: None
    warm_up: int = 0


def check(config: Any, length: int, options: int) -> None:
    """Refuse a batch that a model of this config cannot process.

    Raises:
        UserError: the rows are too long, or the vocabulary has too few words for the options.
    """
    vocab, positions = config.vocab_size, config.max_position_embeddings
    if config.model_type == "roberta":
        positions -= config.pad_token_id + 1  # the number of its first position
    if not 2 <= length <= positions:
        raise UserError(f"--length: given {length}; allowed: from 2 to the model's {positions}")
    if vocab - _FIRST_WORD < max(2, options):
        least = _FIRST_WORD + max(2, options)
        raise UserError(
            f"--vocab: given {vocab}; allowed: at least {least} for this number of options"
        )


def work(
    model: nn.Module, masked: bool, batch: int, length: int, options: int, seed: int = 0
) -> Work:
    """Return a batch of random tokens for ``model``: ``batch`` examples of ``length`` tokens.

    A causal model has one row for each option; the rows differ only in their last token. A masked
    model has one row, whose last token is the mask; the options (at least two) are label words.
    """
    config: Any = model.config
    words = max(2, options) if masked else options
    rng = np.random.default_rng(seed)
    prompts = rng.integers(_FIRST_WORD, config.vocab_size, (batch, length - 1)).tolist()
    label_ids = rng.choice(np.arange(_FIRST_WORD, config.vocab_size), words, replace=False).tolist()
    labels = rng.integers(0, words, batch).tolist()
    lasts = [_FIRST_WORD - 1] if masked else label_ids
    examples = [
        Encoded(
            rows=tuple((*prompt, last) for last in lasts),
            answer=tuple((length - 1,) for _ in lasts),
            label=label,
        )
        for prompt, label in zip(prompts, labels, strict=True)
    ]
    device = next(model.parameters()).device
    layout = BatchLayout(config.pad_token_id or 0, tuple(label_ids) if masked else ())
    objective = OptionObjective(
        option_scorer(model, layout.scoring),
        layout,
        device,
        lambda scores, batch, examples: _losses(scores, batch.labels),
    )
    groups = micro_batches(examples, layout)
    rows = torch.tensor([row for example in examples for row in example.rows], device=device)
    plain = _plain(model, rows, torch.tensor(labels, device=device), label_ids if masked else None)
    return Work(
        model,
        dict(model.named_parameters()),
        [plain],
        [objective.prepare([examples[i] for i in group], None).micro_batch for group in groups],
        rows.numel(),
    )


def modes(
    work: Work, rank: int, max_rank: int, per_forward: int | None
) -> dict[str, Callable[[], Running]]:
    """Return a function for each mode, by name, that makes the mode ready to run.

    Args:
        work: the model and its batch.
        rank: columns of U and V.
        max_rank: columns of closed periods that the fused modes keep beside the weights. All of
            them are filled, so that the most expensive step is timed.
        per_forward: candidates per forward pass, an argument of `Fused`.
    """
    on_cuda = next(iter(work.X.values())).is_cuda  # where passes are recorded as graphs
    memory: dict[str, Tensor] = {}

    def fused(batch: Sequence[MicroBatch]) -> Running:
        draws = Draws(0)
        engine = Fused(work.model, work.X, Folder("stochastic", draws), max_rank, per_forward)
        step = _lozo(engine, batch, rank)

        def refill() -> None:
            directions = LowRankDirections(work.X, Draws(1), rank, nu=1)
            for period in range(max_rank // rank):
                P = directions.draw(period)
                engine.move(P, along(P, LR))

        def fold() -> None:
            engine.flush()

        refill()
        return Running(step, fold, refill, warm_up=6 if on_cuda else 0)

    def published(rank: int | None) -> Running:
        scheme = Published(work.X, work.plain, rank, NU, LR, EPS, memory)
        return Running(scheme, after=scheme.move_back)

    return {
        FLOOR: lambda: Running(lambda: _two_forwards(work.plain)),
        "fused": lambda: fused(work.plain),
        "in_place": lambda: Running(_lozo(InPlace(work.X), work.plain, rank)),
        "published": lambda: published(rank),
        "published_mezo": lambda: published(None),
        "answer_only": lambda: fused(work.answer_only),
    }


def _lozo(engine: Fused | InPlace, batch: Sequence[MicroBatch], rank: int) -> Callable[[], object]:
    optimizer = Lozo(engine, Draws(0), lr=LR, eps=EPS, rank=rank, nu=NU)
    score = Score(engine, batch)
    return lambda: optimizer.step(score)


@torch.inference_mode()
def _two_forwards(batch: Sequence[MicroBatch]) -> None:
    for _ in range(2):
        for part in batch:
            part.losses(1).mean()


def _plain(
    model: nn.Module, rows: Tensor, labels: Tensor, label_ids: list[int] | None
) -> MicroBatch:
    """Return a micro-batch that computes the logits of every position of every row.

    The loss is that of the last token.
    """

    def losses(copies: int) -> Tensor:
        ids = rows.repeat(copies, 1)
        if label_ids is not None:
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            logits = logits[:, -1, label_ids]
            scores = logits.to(wide(logits.dtype))
        else:
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            logits = model(**inputs, use_cache=False).logits
            log_probs = functional.log_softmax(logits[:, -2], -1, dtype=wide(logits.dtype))
            scores = log_probs.gather(1, ids[:, -1:]).view(copies * len(labels), -1)
        return _losses(scores, labels.repeat(copies)).view(copies, -1)

    return MicroBatch(len(labels), rows.numel(), losses)


def _losses(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of each example; with a single option it is the negated score."""
    if scores.shape[1] == 1:
        return -scores[:, 0]
    return functional.cross_entropy(scores, labels, reduction="none")
