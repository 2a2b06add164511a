"""Bilevel steps of tiny language models on the fused engine."""

from __future__ import annotations

import pytest
import torch
from test_two_level import LORA, two_level
from tiny_models import loaded, rows

from lozo_bench.config.build import build
from lozo_bench.engine.fold import Folder
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.protocol import MicroBatch, ScoredBatch
from lozo_bench.engine.score import Score
from lozo_bench.engine.subspace import along
from lozo_bench.engine.value_sets import ValueSets
from lozo_bench.optimizers.adamw import AdamW
from lozo_bench.optimizers.adapter_steps import gradients_of
from lozo_bench.optimizers.low_rank import LowRankDirections
from lozo_bench.randomness.draws import Draws

BILEVEL = {
    "_target_": "lozo_bench.optimizers.bilevel_zofo.BilevelZofo",
    "lr": 0.0, "lr_p": 0.0, "lr_s": 1e-2, "lambda_": 1.0, "inner_steps": 2, "eps": 1e-3,
    "fd": "forward", "directions": "low_rank", "rank": 2, "nu": 3, "upper": "sgd",
    "barrier": None, "reset_s": "never", "eval_with": "both", "upper_rows": 0.5,
    "tasks": [], "tasks_per_step": None,
    "step_counting": "outer", "total_steps": 5, "dropout": False, "autocast": None,
    "max_grad_norm": 1.0,
}  # fmt: skip


def fused(tuned, max_rank=0):
    return Fused(
        tuned.model, tuned.X, Folder("stochastic", Draws(0)), max_rank, extras=tuned.extras
    )


def part(tuned, lengths):
    inputs = rows(lengths)

    def losses(copies):
        stacked = {key: x.repeat(copies, 1) for key, x in inputs.items()}
        logits = tuned.model(**stacked).logits.float()
        return logits.logsumexp(-1).mean(1).view(copies, len(lengths)) ** 2

    return MicroBatch(len(lengths), 7 * len(lengths), losses)


def score(tuned, engine, lengths):
    batch = ScoredBatch([part(tuned, (3,))])
    return Score(engine, [part(tuned, lengths)], streams=lambda name: batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bytes_of_the_weights_stay_at_a_rate_of_0(dtype):
    """Nothing is written to them, also when an update of many steps is folded in."""
    tuned = two_level(LORA, dtype=dtype)
    engine = fused(tuned, max_rank=4 if dtype is torch.bfloat16 else 0)
    before = {name: x.detach().clone() for name, x in tuned.X.items()}
    optimizer = build(BILEVEL | {"inner_steps": 1}, "optimizer", engine, Draws(0))
    for _ in range(24):
        optimizer.step(score(tuned, engine, (7, 4)))
    engine.flush()
    torch.testing.assert_close(dict(tuned.X), before, rtol=0, atol=0)


def test_at_a_rate_of_0_above_s_has_the_bits_of_adamw_with_lora():
    tuned = two_level(LORA, dtype=torch.float32)
    engine = fused(tuned)
    optimizer = build(BILEVEL, "optimizer", engine, Draws(0))
    plain = build(LORA, "tuning").tune(loaded("opt", torch.float32), Draws(0))
    plain.redraw(1)  # s is the second draw
    own = fused(plain)
    adamw = AdamW(own, Draws(0), lr=1e-2, autocast=None, dropout=False)
    sets = ValueSets(tuned.extras)
    for step in range(1, 13):
        lengths = (7, 4) if step % 2 else (5, 6, 3)
        optimizer.step(score(tuned, engine, lengths))
        if not optimizer.schedule.is_upper(step):
            adamw.step(score(plain, own, lengths))
        with sets.showing(1):
            found = {name: x.detach().clone() for name, x in sets.parameters.items()}
        torch.testing.assert_close(
            found, {name: x.detach() for name, x in plain.X.items()}, rtol=0, atol=0
        )


@pytest.mark.parametrize("arch", ["opt", "llama", "gpt2", "roberta"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapters_gradient_sees_an_update_that_is_not_written_yet(arch, dtype):
    tuned = two_level(LORA, arch, dtype=dtype)
    sets = ValueSets(tuned.extras)
    with torch.no_grad():
        for x in sets.parameters.values():
            x.add_(0.3)  # LoRA's B is zero at the start, and A has no gradient then
    engine = fused(tuned, max_rank=8)

    def gradient():
        _, found = gradients_of(score(tuned, engine, (7, 4)), engine, sets.parameters)
        return torch.cat([x.flatten() for x in found.values()])

    before = gradient()
    UV = LowRankDirections(tuned.X, Draws(1), rank=2, nu=10).draw(0)
    engine.move(UV, along(UV, 0.05))
    assert engine.pending.terms
    pending = gradient()
    engine.flush()
    written = gradient()
    moved = (written - before).norm()
    assert moved > 0.1 * before.norm()
    assert (pending - written).norm() < (1e-4 if dtype is torch.float32 else 0.1) * moved
