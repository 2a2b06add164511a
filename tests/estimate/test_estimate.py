"""What an estimate says, by numbers that are worked out by hand."""

from __future__ import annotations

import pytest
from cells import composed

from lozo_bench.data.batch import BatchLayout, ScoringOptions
from lozo_bench.data.collate import collate
from lozo_bench.data.sets import Data
from lozo_bench.estimate.advice import ways_to_fit
from lozo_bench.estimate.cell import Estimator
from lozo_bench.estimate.passes import Part, parts_of
from lozo_bench.estimate.rows import _row
from lozo_bench.estimate.trace import trace
from lozo_bench.models.meta import load_without_weights
from lozo_bench.training.checks import checked

N_13B, N_66B = 12_853_473_280, 65_719_701_504


@pytest.fixture(scope="module")
def estimator():
    return Estimator()


def config(*overrides):
    return checked(composed(*overrides))[0]


def test_the_weights_of_a_model_in_half_precision_take_two_bytes_each(estimator):
    found = estimator.estimate(config("model=opt_13b", "task=sst2", "optimizer=lozo"))
    assert found.memory.terms["weights"] == 2 * N_13B
    assert found.memory.host["the best step's small weights"] < 0.001 * 2 * N_13B
    assert 2 * N_13B * 0.999 < found.disk < 2 * N_13B * 1.001
    assert found.fits


def test_adam_needs_gradients_and_two_moments_beside_the_weights(estimator):
    chosen = ("model=opt_13b", "model.dtype=fp32", "task=sst2", "optimizer=adamw")
    found = estimator.estimate(config(*chosen))
    terms = found.memory.terms
    assert terms["weights"] == terms["gradients"] == 4 * N_13B
    assert terms["the optimizer's moments"] == 8 * N_13B
    assert not found.fits


def test_a_lozo_step_of_opt_13b_takes_about_as_long_as_it_was_measured(estimator):
    """48 ms on an H100 with 16 rows of 30 tokens in bf16 (.assets/bench)."""
    chosen = ("model=opt_13b", "model.dtype=bf16", "task=sst2", "optimizer=lozo", "batch_size=16")
    assert 0.024 < estimator.estimate(config(*chosen)).times.step_s < 0.096


def test_opt_66b_does_not_fit_on_one_card_of_80_gb_and_what_would_is_named(estimator):
    chosen = config("model=opt_66b", "model.dtype=bf16", "task=sst2", "optimizer=lozo")
    found = estimator.estimate(chosen)
    assert found.memory.terms["weights"] == 2 * N_66B
    assert not found.fits
    ways = " ".join(ways_to_fit(chosen, found, estimator))
    assert "estimate.card=h200" in ways
    assert "model.device_map=auto estimate.cards=2" in ways


def test_a_gradient_that_has_no_room_is_told_of_methods_without_one(estimator):
    chosen = config("model=opt_6_7b", "model.dtype=fp32", "task=sst2", "optimizer=adamw")
    ways = " ".join(ways_to_fit(chosen, estimator.estimate(chosen), estimator))
    assert "optimizer=lozo" in ways
    assert "tuning=lora" in ways


def test_lora_trains_two_factors_of_each_query_and_value_layer(estimator):
    chosen = ("model=opt_125m", "task=sst2", "optimizer=adamw", "tuning=lora")
    found = estimator.estimate(config(*chosen))
    assert found.memory.terms["gradients"] == 4 * (12 * 2) * 8 * (768 + 768)


def test_a_prefix_trains_keys_and_values_of_each_layer(estimator):
    chosen = ("model=opt_125m", "task=sst2", "optimizer=adamw", "tuning=prefix")
    assert estimator.estimate(config(*chosen)).memory.terms["gradients"] == 4 * 12 * 2 * 5 * 768


def test_rows_that_are_not_here_are_assumed_and_rows_of_this_package_are_not(estimator):
    (note,) = estimator.estimate(config("model=opt_125m", "task=rte")).notes
    assert note.startswith("rte: rows of 90 tokens (typical)")
    assert estimator.estimate(config("task=reviews")).notes == ()


def test_a_pass_holds_the_widest_layer_and_the_hidden_states_around_it():
    """OPT, float32: what enters a block, its norm and the two sides of the activation."""
    loaded = load_without_weights(config("task=reviews").model)
    hidden, inner, layers = 64, 256, 3
    passed = trace(loaded, gradient=False, dropout=False)
    assert 4 * (2 * hidden + 2 * inner) <= passed.peak <= 4 * (5 * hidden + 2 * inner)
    kept = trace(loaded, gradient=True, dropout=False)
    assert kept.kept >= layers * 4 * (8 * hidden + inner)


@pytest.mark.parametrize(
    "layout",
    [
        BatchLayout(1),
        BatchLayout(1, packed=False),
        BatchLayout(1, label_ids=(5, 6, 7)),
        BatchLayout(1, scoring=ScoringOptions(positions=False, columns=False)),
    ],
)
@pytest.mark.parametrize(("options", "answer"), [(1, 1), (2, 1), (3, 4)])
def test_a_micro_batch_has_the_shape_that_it_gets_when_it_is_made(layout, options, answer):
    if layout.label_ids:
        options, answer = 1, 1
    rows = [_row(length, options, answer) for length in (9, 12, 10, 14)]
    (part,) = parts_of(rows, Data([], [], [], layout), None)
    batch = collate(rows, layout)
    words = 0 if batch.words is None or not layout.scoring.columns else len(batch.words)
    read = batch.read.numel() if layout.scoring.positions else batch.positions
    assert part == Part(batch.positions, read, words)


def test_an_estimate_makes_no_folder_and_loads_no_model(command, tmp_path):
    code, out, _ = command("estimate=true", "estimate.card=cpu")
    assert code == 0
    assert "lozo" in out
    assert "weights" in out
    assert list(tmp_path.iterdir()) == []


def test_an_estimate_of_a_sweep_has_a_line_for_each_kind_of_cell(command, tmp_path):
    sweep = ("-m", "optimizer=lozo,mezo", "seed=s0,s1,s2", "task=sst2", "model=opt_66b")
    code, out, _ = command(*sweep, "estimate=true", "estimate.card=a100")
    assert code == 2, "it does not fit"
    lines = [line.split("│")[1:4] for line in out.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["lozo", "sst2", "3"],
        ["mezo", "sst2", "3"],
        ["all", "", "6"],
    ]
    assert "estimate.card=h200" in out
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_card_is_refused_in_one_line(command):
    code, _, err = command("estimate=true", "estimate.card=h10")
    assert code == 2
    assert err.startswith("estimate.card: given 'h10'; allowed: h100, h200, a100, 4090, cpu")
