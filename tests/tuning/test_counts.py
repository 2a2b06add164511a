"""How many parameters are trained in the published models, on torch's meta device (no memory)."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_every_tuning import made
from tiny_models import loaded
from transformers import OPTConfig, OPTForCausalLM

from lozo_bench.randomness.draws import Draws

SIZES = {"opt_13b": (40, 5120, 40), "opt_66b": (64, 9216, 72)}  # layers, width, heads


def opt(size):
    layers, width, heads = SIZES[size]
    config = OPTConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        word_embed_proj_dim=width,
        ffn_dim=4 * width,
        num_attention_heads=heads,
    )
    meta = torch.device("meta")
    with meta:
        model = OPTForCausalLM(config).eval()
    return dataclasses.replace(loaded("opt"), model=model, device=meta)


@pytest.mark.parametrize(
    ("size", "name", "count"),
    [
        ("opt_13b", "lora", 40 * 2 * 8 * (5120 + 5120)),
        ("opt_66b", "lora", 18_874_368),  # published: 19M (MeZO, checkpoint sizes of OPT-66B)
        ("opt_13b", "prefix", 40 * 2 * 5 * 5120),
        ("opt_66b", "prefix", 5_898_240),  # published: 6M (the same)
        ("opt_13b", "prompt", 10 * 5120),
        ("opt_13b", "deep_prompt", 40 * 50 * 5120),
        ("opt_13b", "ia3", 40 * (5120 + 5120 + 4 * 5120)),
        ("opt_13b", "bitfit", 40 * (4 + 2 + 4 + 1) * 5120 + 5120),
        ("opt_13b", "full", 12_853_473_280),
    ],
)
def test_the_number_of_trained_parameters_follows_the_formula(size, name, count):
    X = made(name).tune(opt(size), Draws(0)).X
    assert sum(x.numel() for x in X.values()) == count
