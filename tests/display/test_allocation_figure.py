"""The heat map of an allocation, read back as the words and squares that an SVG file has."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from lozo_bench.display.allocation_figure import (
    LOGS,
    draw_allocation,
    heat_maps,
    heat_of,
    logged_heat,
)

SVG = "{http://www.w3.org/2000/svg}"
FIRST = {"groups": "q_proj v_proj q_proj v_proj", "layers": "0 0 1 1", "modules": "a b c d"}


def events(*sets, first=FIRST):
    rows = [
        {"step": 1 + 92 * i, "event": "allocation", "enabled": enabled, "active_parameters": 8}
        for i, enabled in enumerate(sets)
    ]
    return [{"step": 1, "event": "other", "loss": 0.5}, rows[0] | first, *rows[1:]]


def write(folder, rows):
    (folder / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_shares_are_of_the_allocations_by_projection_and_layer():
    heat = heat_of(events("0101", "0101", "1001", "0101"))
    assert heat.shares == {
        ("q_proj", 0): 0.25, ("v_proj", 0): 0.75, ("q_proj", 1): 0.0, ("v_proj", 1): 1.0,
    }  # fmt: skip
    assert heat.groups == ["q_proj", "v_proj"]
    assert heat.title == "4 allocations: 2 of 4 modules on; the next set keeps 67% of them"


def test_each_module_is_a_square_and_the_same_events_give_the_same_file(tmp_path):
    write(tmp_path, events("0101", "1001"))
    file = draw_allocation(tmp_path)
    first = file.read_bytes()
    root = ElementTree.parse(file).getroot()
    ids = {x.get("id") for x in root.iter(f"{SVG}g")}
    assert {"q_proj/0", "v_proj/0", "q_proj/1", "v_proj/1"} <= ids
    words = {"".join(x.itertext()).strip() for x in root.iter(f"{SVG}text")}
    assert {"q_proj", "v_proj", "layer", "share of the allocations"} <= words
    assert draw_allocation(tmp_path).read_bytes() == first


def test_a_repeated_line_of_a_resumed_run_counts_once():
    rows = events("0101", "1001")
    assert heat_of([*rows, rows[-1]]) == heat_of(rows)


@pytest.mark.parametrize("rows", [[], [{"step": 1, "event": "allocation", "enabled": "1"}]])
def test_a_run_without_modules_has_no_figure(tmp_path, rows):
    write(tmp_path, rows)
    assert draw_allocation(tmp_path) is None


@pytest.mark.parametrize("name", sorted(path.stem for path in LOGS.glob("*.csv")))
def test_the_authors_logs_have_a_quarter_of_the_modules_on(name):
    """36 of 143 in each allocation: 12 of 48 LoRA modules and 24 of 95 shortcuts if separated."""
    heat = logged_heat(name)
    assert (len(heat.shares), list(heat.layers)) == (143, list(range(24)))
    assert sum(heat.shares.values()) == pytest.approx(36)
    if name.endswith("separated"):
        lora = [x for (group, _), x in heat.shares.items() if group in ("q_proj", "v_proj")]
        assert sum(lora) == pytest.approx(12)
    assert heat.title.startswith("authors' logs: OPT-350M, ")
    assert len(heat_maps([heat, heat]).axes) == 3
