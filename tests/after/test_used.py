"""What `lozo-status --estimate` says: what runs have used, beside what they were to need."""

from __future__ import annotations

import json
import re

import pytest
from cells import composed
from omegaconf import OmegaConf

from lozo_bench.after.status import main
from lozo_bench.after.used import used_by
from lozo_bench.runs.blocks import pack
from lozo_bench.training.checks import checked

H100 = "cuda:0 (NVIDIA H100 80GB HBM3)"


@pytest.fixture(scope="module")
def plain():
    return checked(composed("task=reviews", "model=tiny_opt", "optimizer=lozo"))[1]


def cell(folder, device, config, steps=(), **result):
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save({"steps": 1000}, folder / ".hydra" / "config.yaml")
    header = {"version": 1, "device": device, "config": config, "steps": 1000}
    (folder / "journal.bin").write_bytes(pack(json.dumps(header).encode() + b"\n"))
    rows = [json.dumps({"step": step, "elapsed_s": 36.0 * step}) + "\n" for step in steps]
    (folder / "metrics.jsonl").write_text("".join(rows))
    if result:
        metrics = {"metrics": {"test": {"accuracy": 0.5}}}
        (folder / "result.json").write_text(json.dumps({**header, **metrics, **result}))
    return folder


def test_a_finished_run_has_used_the_time_of_all_its_processes_and_a_running_one_its_last_rows(
    tmp_path, plain
):
    ended = {"elapsed_s": 360, "parallel": {"processes": 2}, "peak_memory_bytes": 2**30}
    folders = [
        cell(tmp_path / "finished", H100, plain, **ended),
        cell(tmp_path / "running", H100, plain, steps=(10, 20)),
    ]
    finished, running = used_by(folders)
    assert (finished.hours, finished.peak) == (0.2, 2**30)
    assert (running.hours, running.peak) == (0.2, None)
    assert finished.found is running.found, "runs that are alike are estimated once"
    assert finished.found.card.name == "H100 80 GB"


def test_the_table_has_both_and_the_sum_leaves_out_what_cannot_be_estimated(
    tmp_path, plain, console
):
    cell(tmp_path / "good", H100, plain, elapsed_s=3600, peak_memory_bytes=2**30)
    cell(tmp_path / "old", H100, {**plain, "no_such_key": 1}, elapsed_s=7200)
    code, out, _ = console(main, "lozo-status", "--estimate", str(tmp_path))
    assert code == 0
    row = next(line for line in out.splitlines() if "good" in line)
    assert re.search(r" (3600 of \S+ s|60 of \S+ min|1 of \S+ h) ", row)
    assert "1 GiB of " in row
    assert re.search(r"used (3600|60|1) of an estimated \S+ (s|min|h) ", out)
    assert "on H100 80 GB" in out
    assert "not estimated: " in out
    assert "no_such_key" in out
