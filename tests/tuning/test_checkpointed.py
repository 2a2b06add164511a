"""Activation checkpointing gives the same gradients with every tuning."""

from __future__ import annotations

import pytest
import torch
from test_every_tuning import CELLS, made
from tiny_models import loaded, rows

from lozo_bench.models.checkpointing import checkpoint_layers
from lozo_bench.randomness.draws import Draws


def gradients(name, arch, checkpoint):
    model = loaded(arch)
    if checkpoint:
        checkpoint_layers(model.model)
    tuned = made(name).tune(model, Draws(0))
    cache = {} if arch == "roberta" else {"use_cache": False}
    tuned.model(**rows(), **cache).logits.logsumexp(-1).sum().backward()
    return {key: x.grad for key, x in tuned.X.items()}


@pytest.mark.parametrize(("name", "arch"), CELLS)
def test_gradients_are_the_same_with_checkpointing(name, arch):
    wanted = gradients(name, arch, checkpoint=False)
    assert wanted
    torch.testing.assert_close(
        gradients(name, arch, checkpoint=True), wanted, rtol=1e-12, atol=1e-12
    )
