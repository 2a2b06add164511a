"""A model on several devices: every factor is drawn where its weight is, with the same numbers."""

from __future__ import annotations

import pytest
import torch

from lozo_bench.optimizers.beside import normal_beside
from lozo_bench.optimizers.low_rank import LowRankDirections
from lozo_bench.randomness.draws import Draws

SHAPES = {"a": (5, 4), "b": (3,), "c": (4, 6), "d": (2,)}
OTHER = {"c", "d"}  # these weights are on another device


class Recorded(Draws):
    """Notes what was drawn where; a tensor of the other device has a shape only."""

    def __init__(self, seed):
        super().__init__(seed)
        self.calls = []

    def normal(self, role, step, shapes, device="cpu", dtype=torch.float32):
        self.calls.append((role, str(device), tuple(shapes)))
        drawn = super().normal(role, step, shapes, "cpu", dtype)
        return {name: x.to(device) for name, x in drawn.items()}


def weights(other="meta"):
    return {n: torch.zeros(s, device=other if n in OTHER else "cpu") for n, s in SHAPES.items()}


@pytest.mark.parametrize("count", [1, 3])
def test_low_rank_directions_are_drawn_beside_their_weights(count):
    draws = Recorded(5)
    there = LowRankDirections(weights(), draws, 2, 10).draw(3, count)
    here = LowRankDirections(weights("cpu"), Draws(5), 2, 10).draw(3, count)
    for drawn, alone in ((there.U, here.U), (there.V, here.V), (there.z, here.z)):
        assert list(drawn) == list(alone)
        for name, x in drawn.items():
            assert x.device.type == ("meta" if name in OTHER else "cpu")
            assert x.shape == alone[name].shape
            assert name in OTHER or x.equal(alone[name])
    assert [(role, device) for role, device, _ in draws.calls] == [
        ("V", "cpu"),
        ("V", "meta"),
        ("U", "cpu"),
        ("U", "meta"),
    ]


def test_on_one_device_there_is_one_draw():
    draws = Recorded(5)
    devices = dict.fromkeys(SHAPES, torch.device("cpu"))
    drawn = normal_beside(draws, "U", 1, SHAPES, devices, torch.float64)
    assert draws.calls == [("U", "cpu", tuple(SHAPES))]
    assert drawn["c"].equal(Draws(5).normal("U", 1, {"c": SHAPES["c"]}, dtype=torch.float64)["c"])


def test_the_published_stream_is_divided_among_the_devices():
    there = LowRankDirections(weights(), Recorded(5), 2, 10, replicate_boundary_bug=True).draw(0)
    here = LowRankDirections(weights("cpu"), Draws(5), 2, 10, replicate_boundary_bug=True).draw(0)
    assert there.U["c"].device.type == there.V["c"].device.type == "meta"
    assert there.U["a"].equal(here.U["a"])
    assert there.z["b"].equal(here.z["b"])
