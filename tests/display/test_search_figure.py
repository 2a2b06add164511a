"""The figure of a search, read back as the words and lines that an SVG file has."""

from __future__ import annotations

import json
import logging
import re
import sys
from xml.etree import ElementTree

import pytest

from lozo_bench.display.search_figure import draw_search

SVG = "{http://www.w3.org/2000/svg}"
STDS = ("std_A", "std_B", "std_dW")


def turns(layers, rounds, stds=STDS):
    return [
        {
            "step": t + 1,
            "loss": 0.5,
            "layer": t % layers,
            "round": t // layers,
            "best": t * t % 7,
        }
        | {"mean": 0.8, "best_ever": t * t % 5, "sigma": 1.0}
        | {key: (t * t % 7) * (i + 1) for i, key in enumerate(stds)}
        for t in range(layers * rounds)
    ]


def write(folder, rows, events=({"step": 1, "event": "untouched_model", "loss": 0.75},)):
    for name, lines in (("metrics", rows), ("events", events)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)


def drawn(folder):
    """Return the words of the figure, and the ids of its lines with how many points each has."""
    root = ElementTree.parse(draw_search(folder)).getroot()
    words = ["".join(x.itertext()).strip() for x in root.iter(f"{SVG}text")]
    groups = {x.get("id"): x for x in root.iter(f"{SVG}g") if "/" in x.get("id", "")}
    return words, {
        name: len(re.findall("[ML]", path.get("d")))
        for name, x in groups.items()
        for path in x.findall(f"{SVG}path")
    }


@pytest.mark.parametrize("layers", [3, 48])
def test_each_layer_has_a_line_over_the_rounds_in_each_panel(tmp_path, layers):
    evaluation = {"step": 2, "forward_passes": 16, "dev_accuracy": 0.5}
    write(tmp_path, [*turns(layers, 4), evaluation])
    words, lines = drawn(tmp_path)
    panels = ("best", "best_ever", *STDS)
    assert lines == {f"{key}/{layer}": 4 for key in panels for layer in range(layers)}
    assert {"best loss of a turn", "best loss so far", "std of A", "std of B", "std of dW"} <= {
        *words
    }
    assert {"round over the layers", "loss on the training rows", "untouched model", "layer"} <= {
        *words
    }


def test_a_search_of_one_prompt_has_one_line_and_the_stds_that_it_reports(tmp_path):
    write(tmp_path, turns(1, 5, stds=["std_prompt"]), events=[])
    words, lines = drawn(tmp_path)
    assert lines.keys() == {"best/0", "best_ever/0", "std_prompt/0"}
    assert "std of prompt" in words
    assert "untouched model" not in words


def test_the_same_rows_give_the_same_file(tmp_path):
    write(tmp_path, turns(3, 2))
    first = draw_search(tmp_path).read_bytes()
    assert draw_search(tmp_path).read_bytes() == first


def test_a_run_that_searches_no_layers_has_no_figure(tmp_path):
    write(tmp_path, [{"step": 1, "loss": 0.5}])
    assert draw_search(tmp_path) is None
    assert not (tmp_path / "search.svg").exists()


def test_without_matplotlib_one_line_says_how_to_get_it(tmp_path, monkeypatch, caplog):
    write(tmp_path, turns(3, 2))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with caplog.at_level(logging.INFO):
        assert draw_search(tmp_path) is None
    (line,) = caplog.messages
    assert "pip install 'lozo-bench[plots]'" in line


def test_pyplot_and_its_state_are_not_used(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    write(tmp_path, turns(3, 2))
    assert draw_search(tmp_path) is not None


def test_a_figure_that_cannot_be_written_is_one_line(tmp_path, caplog):
    write(tmp_path, turns(layers=2, rounds=2))
    (tmp_path / "search.svg").mkdir()
    (tmp_path / "search.svg" / "file").touch()
    assert draw_search(tmp_path) is None
    (line,) = [
        record.getMessage() for record in caplog.records if "search.svg" in record.msg % record.args
    ]
    assert line.startswith("search.svg is not drawn: ")
