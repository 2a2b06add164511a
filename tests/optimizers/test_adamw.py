"""AdamW against torch's AdamW."""

from __future__ import annotations

import pytest
import torch
from toys import run, two_layers

from lozo_bench.engine.in_place import InPlace
from lozo_bench.errors import UserError
from lozo_bench.optimizers.adamw import AdamW
from lozo_bench.randomness.draws import Draws


def test_a_trajectory_equals_that_of_torch():
    engine, loss = two_layers()
    for x in engine.X.values():
        x.requires_grad_()
    options = {"lr": 1e-2, "weight_decay": 0.1, "max_grad_norm": 1e9}
    run(AdamW(engine, Draws(0), autocast=None, **options), engine, loss, steps=5)

    reference_engine, loss = two_layers()
    for x in reference_engine.X.values():
        x.requires_grad_()
    matrices = [x for x in reference_engine.X.values() if x.ndim == 2]
    reference = torch.optim.AdamW(
        [{"params": matrices}, {"params": [reference_engine.X["bias"]], "weight_decay": 0.0}],
        lr=1e-2,
        weight_decay=0.1,
    )
    for _ in range(5):
        reference.zero_grad()
        loss().backward()
        reference.step()
    torch.testing.assert_close(engine.X, reference_engine.X, rtol=0, atol=0)


def test_float16_weights_are_refused_and_the_message_names_the_alternative():
    X = {"w": torch.zeros(2, 2, dtype=torch.float16)}
    with pytest.raises(UserError, match=r"^model\.dtype: given 'fp16'; .*model\.autocast=fp16"):
        AdamW(InPlace(X), Draws(0), lr=1e-3, autocast=None)
    AdamW(InPlace({"w": X["w"].bfloat16()}), Draws(0), lr=1e-3, autocast=None)
