"""chaos.py, which kills runs: it covers every optimizer and detects differences."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import cells
import programs
import pytest
from methods import EVERY, OF_TASKS, SEARCHING, STEPPING

ROOT = Path(__file__).resolve().parents[2]
CHAOS = ROOT / "scripts" / "chaos.py"
sys.path.insert(0, str(CHAOS.parent))
import chaos  # noqa: E402


def test_every_optimizer_and_allocation_is_covered_automatically():
    names = {case.name for case in chaos.cases([])}
    allocations = {path.stem for path in (chaos.CONF / "allocation").glob("*.yaml")} - {"none"}
    optimizers = set(EVERY) - set(chaos.STEPLESS)
    assert optimizers >= {*STEPPING, *SEARCHING, *OF_TASKS}
    every = [*optimizers, *(f"allocation={name}" for name in allocations)]
    assert names == {f"{name} ({kind})" for name in every for kind in ("auto", "full")}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("only", ["lozo_m", "allocation=snip (auto)"])
def test_killed_runs_end_with_the_result_of_an_undisturbed_run(only):
    short = ["steps=24", "task.source.dev=8", "task.source.test=8"]
    done = programs.run(ROOT, "--kills", "2", "--only", only, *short, script=CHAOS, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kills, " in done.stdout
    assert "0 cases differ" in done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    assert cells.run(folder) == [0]
    return folder


@pytest.mark.parametrize("what", ["weights", "a row", "a scalar"])
def test_a_difference_is_detected(finished, tmp_path, what):
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    tally = chaos.Report(0, [], [])
    chaos.compare(finished, other, tally)
    assert tally.differences == []
    if what == "weights":
        result = cells.result(other)
        result["weights"]["last"] = "0" * 32
        (other / "result.json").write_text(json.dumps(result))
    elif what == "a row":
        lines = (other / "metrics.jsonl").read_text().splitlines()
        (other / "metrics.jsonl").write_text("\n".join(lines[:-1]))
    else:
        data = (other / "journal.bin").read_bytes()
        (other / "journal.bin").write_bytes(data[:-1])
    chaos.compare(finished, other, tally)
    assert len(tally.differences) == 1
    assert chaos.report({"lozo": tally}) == 1


def test_an_unknown_name_is_reported_in_one_line():
    done = programs.run(ROOT, "--only", "nope", script=CHAOS)
    assert done.returncode == 2
    assert done.stderr == "--only: no case's name contains 'nope'\n"
