"""The parts of figures: what they read, and the numbers that they draw."""

from __future__ import annotations

import pytest
from finished import finish
from matplotlib.figure import Figure

from lozo_bench.config.schema import Shown, TableConfig
from lozo_bench.figures.bars import Bars, number_in
from lozo_bench.figures.costs import pareto_front
from lozo_bench.figures.lines import Lines
from lozo_bench.figures.losses import Losses
from lozo_bench.figures.panel import Source
from lozo_bench.figures.spectra import by_step_and_layer
from lozo_bench.tables.cells import Run, Sweep


@pytest.fixture
def made(tmp_path):
    """A function: made(rows, *(choices, accuracy)) returns a sweep of finished runs."""

    def make(rows, *cells):
        runs = []
        for number, (choices, accuracy) in enumerate(cells):
            run = Run({"task": "snli_kshot", **choices}, tmp_path / str(number), "")
            finish(run, metrics={"test": {"accuracy": accuracy, "loss": 1.0}})
            runs.append(run)
        config = TableConfig(title="t", rows=rows, published="lozo_roberta_k16")
        return Sweep(config, runs, "lozo-train -m x")

    return make


def test_bars_are_means_over_the_seeds_beside_what_is_published(made):
    axes = Figure().subplots()
    cells = [({"method": "mezo", "seed": seed}, x) for seed, x in (("s1", 0.4), ("s2", 0.6))]
    assert Bars("accuracy", Source("x")).draw(axes, made(["method"], *cells))
    (bar,) = axes.patches
    assert bar.get_height() == pytest.approx(50)
    marks = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert marks["published"] == [68.5]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["SNLI"]
    memory = Figure().subplots()
    assert Bars("memory", Source("x"), Shown.memory).draw(memory, made(["method"], *cells))
    assert memory.patches[0].get_height() == pytest.approx(1.0)


def test_a_line_is_against_the_numbers_of_its_key(made):
    axes = Figure().subplots()
    cells = [({"rank": rank, "seed": "s1"}, x) for rank, x in (("r4", 0.7), ("r1", 0.5))]
    assert Lines("", Source("x"), "rank", "rank r").draw(axes, made(["rank"], *cells))
    (line,) = axes.lines
    assert list(line.get_xdata()) == [1, 4]
    assert list(line.get_ydata()) == pytest.approx([50, 70])


def test_losses_are_against_epochs(made):
    """A batch of 3 rows of 6 is half an epoch."""
    axes = Figure().subplots()
    cells = [({"method": "lozo", "seed": "s1"}, 0.5)]
    assert Losses("", Source("x")).draw(axes, made(["method"], *cells))
    assert list(axes.lines[0].get_xdata()) == [0.5, 1.0]
    assert list(axes.lines[0].get_ydata()) == [2.0, 1.0]
    assert axes.get_xlabel() == "epochs"
    assert not Losses("", Source("x")).draw(axes, Sweep(TableConfig(), [], ""))


def test_what_the_user_gives_replaces_the_overrides_of_a_panel():
    source = Source("lozo_opt13b", ("task=squad", "method=mezo,lozo"))
    assert source.words(["task=rte", "scale=tiny"]) == [
        "experiment=lozo_opt13b", "method=mezo,lozo", "task=rte", "scale=tiny",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "number"),
    [("90.5 (1.2)", 90.5), ("26 (1)", 26.0), ("3.00", 3.0), ("? (8)", None), ("", None)],
)
def test_a_published_cell_begins_with_its_number(text, number):
    assert number_in(text) == number


def test_a_point_that_another_beats_in_both_is_not_on_the_front():
    assert pareto_front([(3.0, 1.0), (1.0, 4.0), (2.0, 5.0), (2.0, 2.0)]) == [
        (1.0, 4.0), (2.0, 2.0), (3.0, 1.0),
    ]  # fmt: skip


def test_singular_values_are_read_by_step_and_layer_without_zeros():
    event = {"event": "singular_values", "values": "2 1 0"}
    rows = [
        {"step": 5, "weight": "model.layers.3.q_proj.weight", **event},
        {"step": 5, "weight": "head.weight", **event},
        {"step": 5, "event": "allocation"},
    ]
    assert {at: x.tolist() for at, x in by_step_and_layer(rows).items()} == {(5, 3): [2, 1]}
