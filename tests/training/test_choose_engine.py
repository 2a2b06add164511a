"""Which engine is chosen for a run."""

from __future__ import annotations

import pytest
import torch

from lozo_bench.config.schema import EngineConfig, EngineMode
from lozo_bench.engine import Draws, Fused, InPlace
from lozo_bench.engine.select import Choice
from lozo_bench.optimizers.base import Needs
from lozo_bench.parallel.team import Team
from lozo_bench.training.choose_engine import agreed_engine, choose_engine

LOW_RANK = Needs(directions="low_rank")


def chosen(needs=LOW_RANK, dtype=torch.float32, **config):
    of = torch.nn.Linear(3, 2, dtype=dtype).eval()
    X = dict(of.named_parameters())
    return choose_engine(EngineConfig(**config), of, X, needs, Draws(0), 2, lambda: [])


@pytest.mark.parametrize("mode", EngineMode)
@pytest.mark.parametrize("needs", [Needs(directions="full_rank"), Needs(gradient=True)])
def test_full_rank_directions_and_gradients_are_in_place_in_every_mode(needs, mode):
    got = chosen(needs, mode=mode)
    assert isinstance(got.engine, InPlace)
    name = "published" if mode is EngineMode.published else "in_place"
    assert got.describe() == {"mode": name, "candidates_per_forward": None, "measured_ms": {}}


def test_low_rank_directions_use_the_engine_of_the_config():
    assert isinstance(chosen(mode=EngineMode.fused).engine, Fused)
    assert isinstance(chosen(mode=EngineMode.in_place).engine, InPlace)


@pytest.mark.parametrize(
    ("dtype", "max_rank"), [(torch.float32, 0), (torch.bfloat16, 32), (torch.float16, 32)]
)
def test_only_half_precision_keeps_closed_periods(dtype, max_rank):
    assert chosen(dtype=dtype).engine.pending.max_rank == max_rank


@pytest.mark.parametrize("in_place", [True, False])
def test_auto_chooses_the_faster_engine_and_records_the_measurements(monkeypatch, in_place):
    ms = {"fused_2": 1.0, "fused_1": 2.0, "in_place": 3.0}
    monkeypatch.setattr(
        "lozo_bench.training.choose_engine.measure_fastest", lambda *_: Choice(in_place, 2, ms)
    )
    got = chosen(mode=EngineMode.auto)
    assert isinstance(got.engine, InPlace if in_place else Fused)
    assert got.describe() == {
        "mode": "in_place" if in_place else "fused",
        "candidates_per_forward": None if in_place else 2,
        "measured_ms": ms,
    }


def test_auto_keeps_a_given_number_of_candidates(monkeypatch):
    monkeypatch.setattr(
        "lozo_bench.training.choose_engine.measure_fastest", lambda *_: Choice(False, 2, {})
    )
    got = chosen(mode=EngineMode.auto, candidates_per_forward=1)
    assert got.engine.per_forward == got.candidates_per_forward == 1


@pytest.mark.parametrize(
    ("mode", "again"),
    [(EngineMode.auto, EngineMode.in_place), (EngineMode.fused, EngineMode.fused)],
)
def test_a_later_attempt_measures_nothing_and_takes_what_was_recorded(mode, again):
    recorded, asked = {"mode": "in_place", "candidates_per_forward": None}, []
    agreed_engine(EngineConfig(mode), asked.append, Team(), recorded)
    assert asked == [EngineConfig(again)]
