"""The page is one file that needs no network, and that no text of a run can break."""

from __future__ import annotations

import json
import re

import pytest
from report_folders import write_run

from lozo_bench.report.collect import collect
from lozo_bench.report.render import ASSETS, as_html

HOSTILE = "</script><script>alert(1)</script><!-- {{style}} \u2028 ' \" & %"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    run = write_run(folder, name="a<script>b", failure=HOSTILE)
    (run / "train.log").write_text(HOSTILE)
    (run / "metrics.jsonl").write_bytes(b'{"step": 1, "loss": 0.5, "<script>": 1}\n')
    return as_html(collect(folder))


def test_texts_of_runs_come_back_as_they_are_and_end_no_element(page):
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[
        1
    ]
    assert not set("<>&\u2028") & set(text)
    (run,) = json.loads(text)["runs"]
    assert run["log"] == HOSTILE.splitlines()
    assert run["note"] == HOSTILE
    assert run["name"].endswith("a<script>b")
    assert page.count("</script>") == 3  # the data, the plots and the page's own


def test_half_a_surrogate_pair_can_be_written(tmp_path):
    run = write_run(tmp_path, failure="half \udcff")
    (run / "train.log").write_bytes(b"not UTF-8: \xff")
    as_html(collect(tmp_path)).encode("utf-8")


def test_nothing_is_loaded_from_elsewhere(page):
    assert not re.search(r"""(src|href)\s*=\s*["'](https?:)?//""", page)
    assert not re.search(r"@import|url\(", page)
    assert "default-src 'none'" in page


def test_the_page_without_data_is_small():
    empty = {"root": "outputs", "version": "", "made": "", "runs": [], "sweeps": []}
    assert len(as_html(empty).encode()) < 200_000


def test_the_library_that_draws_has_its_licence_in_the_page(page):
    assert "Copyright (c) 2022 Leon Sorokin" in page


def test_texts_become_text_nodes_only():
    for path in ASSETS.glob("*.js"):
        if not path.name.startswith("uPlot"):
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|eval\(", path.read_text())


def test_200_runs_with_long_curves_stay_small(tmp_path):
    run = write_run(tmp_path)
    rows = "".join(
        json.dumps({"step": step, "loss": 1 / step, "forward_passes": 2 * step}) + "\n"
        for step in range(1, 3001)
    )
    (run / "metrics.jsonl").write_text(rows)
    one = collect(tmp_path)
    record = json.dumps(one["runs"][0], separators=(",", ":"))
    assert len(record) < 8_000
