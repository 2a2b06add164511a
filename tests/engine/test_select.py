"""Choosing the faster engine by measurement."""

from __future__ import annotations

import pytest
import torch
from models import model, part

from lozo_bench.engine import select
from lozo_bench.engine.fold import Folder
from lozo_bench.engine.fused import Fused
from lozo_bench.errors import UserError
from lozo_bench.randomness.draws import Draws


def engine(dtype=torch.float32):
    net = model("opt", dtype)
    X = dict(net.named_parameters())
    return net, Fused(net, X, Folder("nearest", Draws(0)))


@pytest.mark.parametrize(
    ("seconds", "in_place", "per_forward"),
    [
        ({"fused_2": 1, "fused_1": 2, "in_place": 3}, False, 2),
        ({"fused_2": 2, "fused_1": 1, "in_place": 3}, False, 1),
        ({"fused_2": 2, "fused_1": 3, "in_place": 1}, True, 2),
    ],
)
def test_the_fastest_way_is_chosen(monkeypatch, seconds, in_place, per_forward):
    times = iter(list(seconds.values()) * 4)
    monkeypatch.setattr(select, "_milliseconds", lambda run, X: next(times))
    net, fused = engine()
    choice = select.measure_fastest(fused, rank=2, parts=[part(net)])
    assert (choice.in_place, choice.per_forward) == (in_place, per_forward)
    assert choice.ms == seconds


def test_measuring_times_every_way_and_changes_no_byte():
    net, fused = engine()
    before = {name: x.detach().clone() for name, x in net.named_parameters()}
    choice = select.measure_fastest(fused, rank=2, parts=[part(net)])
    assert set(choice.ms) == {"fused_2", "fused_1", "in_place"}
    assert all(ms > 0 for ms in choice.ms.values())
    assert fused.per_forward is None
    for name, x in net.named_parameters():
        assert torch.equal(x.view(torch.uint8), before[name].view(torch.uint8))


def test_the_in_place_engine_is_not_considered_for_half_precision():
    net, fused = engine(torch.bfloat16)
    assert set(select.measure_fastest(fused, rank=2, parts=[part(net)]).ms) == {
        "fused_2",
        "fused_1",
    }


def test_a_way_that_the_model_does_not_support_is_not_considered(monkeypatch):
    net, fused = engine()

    def refuse(*_):
        raise UserError("no rule for it")

    monkeypatch.setattr(fused, "losses", refuse)
    choice = select.measure_fastest(fused, rank=2, parts=[part(net)])
    assert choice.in_place
    assert set(choice.ms) == {"in_place"}


def test_a_model_that_supports_no_way_raises_the_reason(monkeypatch):
    net, fused = engine(torch.bfloat16)

    def refuse(*_):
        raise UserError("no rule for it")

    monkeypatch.setattr(fused, "losses", refuse)
    with pytest.raises(UserError, match="no rule for it"):
        select.measure_fastest(fused, rank=2, parts=[part(net)])
