"""Adam on MeZO's estimate against torch's AdamW."""

from __future__ import annotations

import torch
from toys import score, two_layers

from lozo_bench.engine.in_place import InPlace
from lozo_bench.optimizers.mezo_adam import MezoAdam
from lozo_bench.randomness.draws import Draws


def test_it_is_torchs_adamw_with_c_z_as_the_gradient():
    engine, loss = two_layers()
    options = {"lr": 1e-2, "eps": 1e-3, "beta1": 0.8, "beta2": 0.9, "adam_eps": 1e-3}
    optimizer = MezoAdam(engine, Draws(0), **options, weight_decay=0.1)
    theirs = {name: x.detach().clone().requires_grad_() for name, x in engine.X.items()}
    groups = [
        {"params": [x for x in theirs.values() if x.ndim == 2], "weight_decay": 0.1},
        {"params": [theirs["bias"]], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=1e-2, betas=(0.8, 0.9), eps=1e-3)
    for t in range(4):
        c = optimizer.step(score(engine, loss)).scalars["projected_grad"]
        shapes = {name: tuple(x.shape) for name, x in theirs.items()}
        for name, z in Draws(0).normal("z", t, shapes, dtype=torch.float64).items():
            theirs[name].grad = c * z
        adamw.step()
    ours, theirs = ({n: x.detach() for n, x in of.items()} for of in (engine.X, theirs))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_moments_of_half_precision_weights_are_float32():
    engine = InPlace({"w": torch.ones(4, 4, dtype=torch.bfloat16)})
    optimizer = MezoAdam(engine, Draws(0), lr=0.1, eps=1e-1)
    optimizer.step(score(engine, lambda: engine.X["w"].float().sum()))
    assert {optimizer.m["w"].dtype, optimizer.v["w"].dtype} == {torch.float32}


def test_a_skipped_step_does_not_count_as_an_update():
    engine, loss = two_layers()
    optimizer = MezoAdam(engine, Draws(0), lr=1e-2, eps=1e-3)
    for factor in (float("nan"), 1.0):
        try:
            optimizer.step(score(engine, lambda factor=factor: factor * loss()))
        except RuntimeError:
            assert not optimizer.m
    assert (optimizer.t, optimizer.updates) == (2, 1)
