"""Zeroth-order sign descent against its equations."""

from __future__ import annotations

import pytest
import torch
from toys import score

from lozo_bench.engine.in_place import InPlace
from lozo_bench.optimizers.zo_sgd_sign import ZoSgdSign
from lozo_bench.randomness.draws import Draws

SHAPES = {"w": (3, 4), "b": (3,)}


@pytest.mark.parametrize("uphill", [1.0, -1.0])
def test_every_element_moves_by_lr_against_the_sign_of_c_z(uphill):
    engine = InPlace({name: torch.zeros(s, dtype=torch.float64) for name, s in SHAPES.items()})
    loss = score(engine, lambda: uphill * sum(x.sum() for x in engine.X.values()))
    c = ZoSgdSign(engine, Draws(0), lr=0.25, eps=1e-3).step(loss).scalars["projected_grad"]
    z = Draws(0).normal("z", 0, SHAPES, dtype=torch.float64)
    assert c == pytest.approx(uphill * sum(float(x.sum()) for x in z.values()))
    wanted = {name: -0.25 * torch.sign(c * x) for name, x in z.items()}
    torch.testing.assert_close(engine.X, wanted, rtol=0, atol=1e-15)
    assert torch.cat([x.sign().flatten() for x in engine.X.values()]).unique().tolist() == [-1, 1]


def test_equal_losses_move_nothing():
    engine = InPlace({"w": torch.ones(2, 2, dtype=torch.float64)})
    ZoSgdSign(engine, Draws(0), lr=0.25, eps=0.5).step(
        score(engine, lambda: torch.ones(()).double())
    )
    engine.flush()
    torch.testing.assert_close(engine.X["w"], torch.ones(2, 2).double(), rtol=0, atol=1e-15)
