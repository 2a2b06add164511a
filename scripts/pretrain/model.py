"""The two architectures and the loop that trains them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from rich.progress import Progress
from torch.nn.functional import cross_entropy
from transformers import (
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from pretrain.rows import Encoded

PAD, MASK, FIRST_WORD = 1, 4, 5
# The weight of the answers' mean loss; the mean loss over all predicted tokens has weight 1. With
# 0.5, the model did not learn to compare two sentences (entailment) in 3000 steps.
ANSWER_WEIGHT = 3.0
_BUCKET = 32  # batches whose rows are sorted by length together


@dataclass(frozen=True)
class Plan:
    """The sizes of a model and the settings of its training.

    ``rate`` is the peak learning rate, ``init`` the standard deviation of the initial weights; see
    `_corrupt` for ``spare_labelled``.
    """

    hidden: int
    layers: int
    heads: int
    vocab: int
    positions: int
    steps: int
    batch: int = 64
    rate: float = 2e-3
    init: float = 0.02
    spare_labelled: bool = False


def build(kind: str, plan: Plan) -> PreTrainedModel:
    """Return a new model with tied embeddings and weights from torch's global generator.

    The model has no dropout, because a zeroth-order step compares two forward passes.
    """
    if kind == "causal":
        return OPTForCausalLM(
            OPTConfig(
                vocab_size=plan.vocab,
                hidden_size=plan.hidden,
                init_std=plan.init,
                word_embed_proj_dim=plan.hidden,
                num_hidden_layers=plan.layers,
                ffn_dim=4 * plan.hidden,
                num_attention_heads=plan.heads,
                max_position_embeddings=plan.positions,
                dropout=0.0,
                attention_dropout=0.0,
                layerdrop=0.0,
                bos_token_id=0,
                pad_token_id=PAD,
                eos_token_id=2,
            )
        )
    return RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=plan.vocab,
            hidden_size=plan.hidden,
            initializer_range=plan.init,
            num_hidden_layers=plan.layers,
            intermediate_size=4 * plan.hidden,
            num_attention_heads=plan.heads,
            max_position_embeddings=plan.positions + 2,
            type_vocab_size=1,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            layer_norm_eps=1e-5,
            bos_token_id=0,
            pad_token_id=PAD,
            eos_token_id=2,
        )
    )


def train(model: Any, kind: str, rows: list[Encoded], plan: Plan, seed: int, label: str) -> float:
    """Train ``model`` with AdamW in place and return the mean loss of the last 100 steps."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.rate, total_steps=plan.steps, pct_start=0.05, cycle_momentum=False
    )
    masks = torch.Generator().manual_seed(seed)
    batches = _batches(rows, plan.batch, Random(seed))
    recent: list[float] = []
    with Progress() as progress:
        bar = progress.add_task(label, total=plan.steps)
        for _ in range(plan.steps):
            ids, answers = _pad(next(batches))
            if kind == "masked":
                inputs, targets = _corrupt(ids, answers, plan, masks)
            else:
                # Each position predicts the next token: that before the answer predicts the answer.
                inputs, targets, answers = ids, _shifted(ids), answers - 1
            loss = _loss(model, inputs.to(device), targets.to(device), answers.to(device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            recent = [*recent[-99:], loss.item()]
            progress.update(bar, advance=1, description=f"{label} loss {recent[-1]:.3f}")
    model.to("cpu").eval()
    return sum(recent) / len(recent)


def _loss(
    model: Any, inputs: torch.Tensor, targets: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """Return the mean loss of predicted tokens plus the weighted mean loss of answers.

    Positions whose target is negative do not count. ``positions`` [B] are those of the answers; a
    negative one means that the row has no answer.
    """
    # The head is applied only to positions that count: a seventh of them in a masked model.
    states = model.base_model(input_ids=inputs, attention_mask=inputs != PAD).last_hidden_state
    wanted = targets >= 0
    loss = cross_entropy(model.lm_head(states[wanted]), targets[wanted])
    rows = (positions >= 0).nonzero()[:, 0]
    if len(rows) == 0:
        return loss
    columns = positions[rows]
    answers = model.lm_head(states[rows, columns])
    return loss + ANSWER_WEIGHT * cross_entropy(answers, targets[rows, columns])


def _shifted(ids: torch.Tensor) -> torch.Tensor:
    """Return the next token of each position; -1 if there is none."""
    targets = torch.full_like(ids, -1)
    targets[:, :-1] = ids[:, 1:]
    targets[targets == PAD] = -1
    return targets


def _corrupt(
    ids: torch.Tensor, answers: torch.Tensor, plan: Plan, masks: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hide 15% of the words as BERT does (8 of 10 masked, 1 random, 1 kept), and every answer.

    With ``plan.spare_labelled`` only the answer of a labelled row is hidden, because a short
    sentence without a seventh of its words says too little about its label.
    """
    draw = torch.rand(ids.shape, generator=masks)
    words = ids >= FIRST_WORD
    if plan.spare_labelled:
        words &= (answers < 0).unsqueeze(1)
    hidden = words & (draw < 0.15)
    inputs = ids.clone()
    inputs[words & (draw < 0.12)] = MASK
    swapped = words & (draw >= 0.12) & (draw < 0.135)
    others = torch.randint(FIRST_WORD, plan.vocab, ids.shape, generator=masks)
    inputs[swapped] = others[swapped]
    rows = (answers >= 0).nonzero()[:, 0]
    inputs[rows, answers[rows]] = MASK
    hidden[rows, answers[rows]] = True
    return inputs, torch.where(hidden, ids, -1)


def _pad(batch: list[Encoded]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(row.ids) for row in batch)
    ids = torch.tensor([[*row.ids, *[PAD] * (width - len(row.ids))] for row in batch])
    return ids, torch.tensor([row.answer for row in batch])


def _batches(rows: list[Encoded], size: int, rng: Random) -> Iterator[list[Encoded]]:
    """Yield shuffled batches of rows of similar length, epoch after epoch."""
    while True:
        order = rng.sample(rows, len(rows))
        for start in range(0, len(order), size * _BUCKET):
            near = sorted(order[start : start + size * _BUCKET], key=lambda row: len(row.ids))
            cuts = list(range(0, len(near), size))
            for cut in rng.sample(cuts, len(cuts)):
                yield near[cut : cut + size]
