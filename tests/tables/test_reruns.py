"""What others got stands below a table, with its source, and never among the published numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from lozo_bench.tables.published import PUBLISHED
from lozo_bench.tables.reruns import HEADING, reruns, reruns_below, sources


def sweep_of(*models):
    return SimpleNamespace(
        runs=[
            SimpleNamespace(folder=Path("outputs/x/sst2", model, "lozo-r2-s0")) for model in models
        ]
    )


def test_the_reruns_of_a_tables_models_are_listed_with_their_sources():
    below = reruns_below([sweep_of("opt_13b")])
    first, *lines = below.splitlines()
    assert first == HEADING
    assert "  BSZO (arXiv 2601.01452, Tables 1, 3 and 4)" in lines
    (lozo,) = (line for line in lines if line.startswith("    opt_13b bf16 lozo: sst2 86.12"))
    assert lozo.endswith("mean 66.52, step 452.0 ms")
    assert "roberta_large" not in below


def test_a_table_without_reruns_says_so():
    assert reruns_below([sweep_of("tiny_opt")]) == "No reruns by others are known for tiny_opt."


def test_every_number_has_a_source_and_none_is_a_published_file():
    assert {each.source for each in reruns()} <= set(sources())
    assert len(reruns()) == 44
    assert not (PUBLISHED / "reruns.csv").exists()
