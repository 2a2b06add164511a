"""gpu_table.py: the table is made from the newest results, and documents have that table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import gpu_table  # noqa: E402

STEP = {
    "check": "step_13b_sst2",
    "model": "opt-13b",
    "batch": 16,
    "length": 30,
    "options": 2,
    "ms": {"two_forwards": 78.44, "fused": 100.0, "published": 460.0, "answer_only": 57.5},
}
ABOUT = {
    "check": "about",
    "card": "A card",
    "driver": "1.2",
    "python": "3.12.3",
    "torch": "2.11.0",
    "triton": None,
    "transformers": "5.17.0",
    "cuda": "13.0",
    "commit": "0123456789abcdef+changes",
    "date": "2026-11-26 20:10",
}
# The first results ever had no card in their first line.
FORMER = {"commit": "1aa7c4b", "date": "2026-11-26", "driver": "1.1", "python": "3.12.3"}


def write(folder, name, *lines):
    (folder / f"gpu_{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_newest_results_make_the_table(tmp_path):
    larger = {**STEP, "check": "step_30b", "model": "opt-30b", "options": 1, "length": 200}
    larger["ms"] = {"two_forwards": 600.0, "fused": 650.0, "answer_only": 630.0}
    write(tmp_path, "z_former", FORMER, {"check": "device", "name": "B"}, {**STEP, "ms": {}})
    write(
        tmp_path,
        "h100",
        ABOUT,
        larger,
        {"check": "step_66b", "model": "opt-66b", "skipped": "no room"},
        {"check": "step_1b3_long", "ok": False, "error": "it broke"},
        STEP,
    )
    table = gpu_table.table(tmp_path).splitlines()
    assert table[2:] == [
        "| OPT-13B | 16 x 30, 2 options | 78.4 ms | **57.5 ms** | 0.73 | 460 ms | 8.0x |",
        "| OPT-30B | 16 x 200 | 600 ms | **630 ms** | 1.05 |  |  |",
        "",
        "A card; driver 1.2, cuda 13.0, python 3.12.3, torch 2.11.0, transformers 5.17.0; "
        "commit 0123456+changes, 2026-11-26.",
    ]


def test_without_results_there_is_no_table(tmp_path):
    assert gpu_table.table(tmp_path) == ""


def test_the_table_is_written_between_the_comments(tmp_path, monkeypatch, capsys):
    write(tmp_path, "h100", ABOUT, STEP)
    monkeypatch.setattr(gpu_table, "RESULTS", tmp_path)
    document = tmp_path / "README.md"
    monkeypatch.setattr(sys, "argv", ["gpu_table.py", "--into", str(document)])
    document.write_text("no table\n")
    assert gpu_table.main() == 2
    assert "has no lines <!-- gpu_table -->" in capsys.readouterr().err
    document.write_text(f"before\n{gpu_table.START}old\n{gpu_table.END}after\n")
    assert gpu_table.checked([document]) == [document]
    assert gpu_table.main() == 0
    assert gpu_table.checked([document]) == []
    written = document.read_text()
    assert written.startswith(f"before\n{gpu_table.START}| model")
    assert written.endswith(f"{gpu_table.END}after\n")


def test_documents_have_the_table_of_the_newest_results():
    """If this fails: python scripts/gpu_table.py --into DOCUMENT."""
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "scripts" / "README.md"]
    assert gpu_table.checked(documents) == []
