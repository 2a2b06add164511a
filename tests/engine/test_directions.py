"""Directions derived from other directions."""

from __future__ import annotations

import pytest
import torch

from lozo_bench.engine import gaussian
from lozo_bench.engine.directions import Given, Restricted, Scaled, Transformed
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.randomness.draws import Draws

SHAPES = {"a": (3, 4), "b": (5,), "c": (2, 2)}


def moved(direction, by=2.0, shapes=SHAPES):
    X = {name: torch.zeros(s, dtype=torch.float64) for name, s in shapes.items()}
    direction.move(X, by)
    return X


def z():
    return Draws(0).normal("z", 1, SHAPES, dtype=torch.float64)


def test_a_changed_direction_applies_the_function_to_every_piece():
    def doubled_in_b(name, start, piece):
        return 2 * piece if name == "b" else piece

    got = moved(Transformed(Draws(0), 1, doubled_in_b))
    wanted = {name: (4 if name == "b" else 2) * x for name, x in z().items()}
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)


def test_a_restricted_direction_moves_only_the_named_weights_by_the_same_z():
    got = moved(Restricted(Gaussian(Draws(0), 1), ["a", "c"]))
    wanted = {name: (name != "b") * 2 * x for name, x in z().items()}
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)


def test_a_scaled_direction_multiplies_each_weight_by_its_own_factor():
    got = moved(Scaled(Gaussian(Draws(0), 1), {"a": 0.5, "c": 3.0}))
    factors = {"a": 1.0, "b": 2.0, "c": 6.0}
    wanted = {name: factors[name] * x for name, x in z().items()}
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("limit", [3, 1000])
def test_a_dense_direction_is_the_same_for_every_piece_size(monkeypatch, limit):
    monkeypatch.setattr(gaussian, "GROUP_ELEMENTS", limit)
    have = z()
    got = moved(Given(lambda name, start, stop: have[name].view(-1)[start:stop]))
    torch.testing.assert_close(got, {n: 2 * x for n, x in have.items()}, rtol=0, atol=0)
