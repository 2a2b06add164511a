"""Every figure of the catalogue is drawn from finished runs, and no panel of it stays empty."""

from __future__ import annotations

import copy

import pytest
from finished import finish
from omegaconf import open_dict

from lozo_bench.config.paths import CONF
from lozo_bench.figures.catalogue import FIGURES
from lozo_bench.figures.main import _missing, _sweeps
from lozo_bench.figures.page import draw
from lozo_bench.figures.panel import finished
from lozo_bench.tables.cells import compose_runs, configs
from lozo_bench.training.run import run

# What narrows an experiment to a few runs: composing a config takes a tenth of a second.
NARROWED = {
    "lozo_roberta_k16": ["method=mezo,lozo", "task=snli_kshot"],
    "lozo_loss": ["method=lozo"],
    "mezo_memory": ["model=opt_1_3b", "method=mezo,ft"],
    "mezo_time": ["model=opt_1_3b", "method=mezo"],
    "zo_bench": ["optimizer=mezo,sgd", "tuning=full"],
    "clora_dimension": ["method=c_lora", "optimizer.intrinsic_dim=52,500", "task=sst2_clora"],
    "clora_rank": ["method=c_lora", "rank=r1,r4", "task=sst2_clora"],
    "clora_init": ["method=c_lora", "variant=clora_scaled,clora_random", "task=sst2_clora"],
    "bilevel_memory_time": ["method=mezo,ft_lora"],
}


def at_tiny_scale(name, folder):
    words = ["scale=tiny", f"hydra.sweep.dir={folder}", *NARROWED.get(name, [])]
    with configs(CONF):
        return _sweeps(FIGURES[name], words)


@pytest.mark.parametrize("name", FIGURES)
def test_no_panel_is_empty_when_all_runs_are_finished(name, tmp_path):
    sweeps = at_tiny_scale(name, tmp_path)
    assert all(each is None or each.runs for each in sweeps)
    assert _missing(sweeps) != ""
    for each in filter(None, sweeps):
        for number, cell in enumerate(each.runs):
            finish(cell, number)
    assert _missing(sweeps) == ""
    out = tmp_path / "figure.svg"
    assert draw(FIGURES[name], sweeps, out) == []
    words = out.read_text()
    for panel in FIGURES[name].panels:
        assert panel.title.replace("'", "&#x27;") in words or panel.title in words


def test_a_run_at_tiny_scale_gives_the_singular_values_of_its_gradients(tmp_path):
    words = ["experiment=lozo_singular_values", "scale=tiny", f"hydra.sweep.dir={tmp_path}"]
    with configs(CONF):
        ((cell, config),) = compose_runs(words)[2]
    alone = copy.deepcopy(config)
    with open_dict(alone):
        del alone["hydra"]
    cell.folder.mkdir(parents=True)
    run(alone, cell.folder)
    sweeps = at_tiny_scale("lozo_singular_values", tmp_path)
    assert [len(finished(each)) for each in sweeps] == [1, 1]
    assert draw(FIGURES["lozo_singular_values"], sweeps, tmp_path / "a.svg") == []
    assert {"step 1", "step 2", "layer 0"} <= set(texts(tmp_path / "a.svg"))


def texts(path):
    from xml.etree import ElementTree

    root = ElementTree.parse(path).getroot()
    return ["".join(x.itertext()).strip() for x in root.iter("{http://www.w3.org/2000/svg}text")]
