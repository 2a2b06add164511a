"""The candidates and budgets of OPT-350M, on torch's meta device (no memory)."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny_models import loaded
from transformers import OPTConfig, OPTForSequenceClassification

from lozo_bench.allocation.budget import Budget
from lozo_bench.config.schema import Kind
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.gated_lora import GatedLora
from lozo_bench.tuning.head import with_trainable_head
from lozo_bench.tuning.shortcuts import Shortcuts

TARGETS = r"\.(q_proj|v_proj)$"


def opt_350m():
    config = OPTConfig(
        vocab_size=50272, hidden_size=1024, num_hidden_layers=24, ffn_dim=4096,
        num_attention_heads=16, word_embed_proj_dim=512, do_layer_norm_before=False,
    )  # fmt: skip
    meta = torch.device("meta")
    with meta:
        model = OPTForSequenceClassification(config).eval()
    return dataclasses.replace(loaded("opt"), model=model, device=meta, kind=Kind.classifier)


def enabled(gates, mode):
    """Turn on the best quarter by some scores; return how many of both kinds are on."""
    scores = torch.arange(len(gates.modules), dtype=torch.float64).sin()
    ranks = Budget(0.25, None, mode, "gates").ranks(gates.modules, scores, scores)
    gates.set(ranks)
    on = [m.is_shortcut for m, is_on in zip(gates.modules, gates.on.tolist(), strict=True) if is_on]
    return on.count(False), on.count(True)


@pytest.fixture(autouse=True)
def nothing_drawn(monkeypatch):
    """Draw no initial values, which the meta device does not keep."""
    for file in ("lora", "shortcuts"):
        monkeypatch.setattr(f"lozo_bench.tuning.{file}.initialise", lambda *_: None)


def test_lora_alone():
    model = opt_350m()
    tuned = GatedLora(r=8, alpha=16.0, targets=TARGETS).tune(model, Draws(0))
    this = with_trainable_head(tuned, model)
    assert len(this.gates.modules) == 48
    assert this.gates.active_parameters == 786_432
    assert enabled(this.gates, "combined") == (12, 0)
    assert this.gates.active_parameters == 196_608
    head = {name: x.numel() for name, x in this.X.items() if ".lora_" not in name}
    assert head == {"score.weight": 2 * 512}


@pytest.mark.parametrize(("r", "active"), [(8, 589_824), (32, 2_359_296)])
def test_lora_and_shortcuts(r, active):
    this = Shortcuts(r=r, alpha=16.0, targets=TARGETS).tune(opt_350m(), Draws(0))
    modules = this.gates.modules
    assert (len(modules), sum(m.is_shortcut for m in modules)) == (143, 95)
    assert {m.scaling for m in modules} == {16 / r, 4 / r}
    assert enabled(this.gates, "separated") == (12, 24)
    assert this.gates.active_parameters == active
    assert sum(enabled(this.gates, "combined")) == 36
    assert this.gates.active_parameters == active
