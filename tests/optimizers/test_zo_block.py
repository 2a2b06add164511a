"""Block-wise steps: each block has its own estimate."""

from __future__ import annotations

import pytest
import torch
from toys import score

from lozo_bench.engine.finite import NonFiniteLossError
from lozo_bench.engine.in_place import InPlace
from lozo_bench.optimizers.zo_block import ZoBlock
from lozo_bench.randomness.draws import Draws

NAMES = ("embed.weight", "layers.0.w", "layers.1.w", "lm_head.weight")


def ones():
    return InPlace({name: torch.ones(2, 2, dtype=torch.float64) for name in NAMES})


def product(engine):
    """A loss whose slope in each block depends on the values of the other blocks."""
    return torch.stack([x.sum() for x in engine.X.values()]).prod()


def expected_step(update):
    shapes = dict.fromkeys(NAMES, (2, 2))
    z = Draws(0).normal("z", 0, shapes, dtype=torch.float64)
    X = {name: torch.ones(2, 2, dtype=torch.float64) for name in NAMES}
    seen = {name: x.clone() for name, x in X.items()}
    for name in NAMES:
        others = torch.stack([x.sum() for n, x in seen.items() if n != name]).prod()
        X[name] -= 1e-3 * float(others * z[name].sum()) * z[name]
        if update == "at_once":
            seen[name] = X[name]
    return X


@pytest.mark.parametrize("update", ["at_once", "together"])
def test_a_step_follows_the_equations(update):
    engine = ones()
    optimizer = ZoBlock(engine, Draws(0), lr=1e-3, eps=1e-3, update=update)
    report = optimizer.step(score(engine, lambda: product(engine)))
    engine.flush()
    torch.testing.assert_close(engine.X, expected_step(update))
    assert report.forwards == 8


def test_blocks_of_equal_shapes_have_different_directions():
    engine = ones()
    ZoBlock(engine, Draws(0), lr=1e-3, eps=1e-3).step(score(engine, lambda: product(engine)))
    engine.flush()
    moved = [(x - 1) / (x - 1).norm() for x in engine.X.values()]
    for i, one in enumerate(moved):
        for other in moved[:i]:
            assert abs(float((one * other).sum())) < 0.999


@pytest.mark.parametrize("bad", [1, 3, 6])
def test_updates_of_earlier_blocks_are_undone_if_a_later_loss_is_not_finite(bad):
    engine, asked = ones(), []

    def loss():
        asked.append(None)
        return product(engine) * (float("nan") if len(asked) == bad else 1.0)

    with pytest.raises(NonFiniteLossError):
        ZoBlock(engine, Draws(0), lr=1e-3, eps=1e-3).step(score(engine, loss))
    engine.flush()
    before = {name: torch.ones(2, 2, dtype=torch.float64) for name in NAMES}
    torch.testing.assert_close(engine.X, before, rtol=0, atol=1e-14)
