"""Runs of several processes that are stopped, killed, joined late or refused."""

from __future__ import annotations

import os
import signal

import cells
import pytest

from lozo_bench.runs.outcome import Code

pytestmark = pytest.mark.timeout(400)  # several processes share the cores

LONG = ["steps=30", "eval_every=10", "log_every=5"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return the result of an undisturbed run by one process; each set of overrides runs once."""
    results = {}

    def result(*more):
        if more not in results:
            folder = tmp_path_factory.mktemp("undisturbed")
            assert cells.run(folder, *LONG, *more) == [Code.finished]
            results[more] = cells.result(folder)
        return results[more]

    return result


def started(folder, waiting, more=()):
    """Start two processes and wait until one of them pauses in the middle of training."""
    port = cells.free_port()
    start = [cells.start, cells.start]
    start[waiting] = cells.start_waiting
    processes = [
        start[rank](folder, [*LONG, *more], cells.place(rank, 2, port)) for rank in range(2)
    ]
    cells.wait_until_it_waits(folder, *processes)
    return processes


def ended(processes):
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def assert_similar(result, undisturbed):
    assert result["best_step"] == undisturbed["best_step"]
    assert result["forwards"] == undisturbed["forwards"]
    for name, metrics in undisturbed["metrics"].items():
        assert result["metrics"][name]["loss"] == pytest.approx(metrics["loss"], rel=1e-3)


@pytest.mark.parametrize(
    ("signalled", "more"),
    [(0, ()), (1, ()), (1, ("checkpoint.kind=full",)), (1, ("optimizer=adamw",))],
)
def test_when_one_process_gets_a_signal_all_stop_in_the_same_step(
    tmp_path, undisturbed, signalled, more
):
    processes = started(tmp_path, signalled, more)
    os.kill(processes[signalled].pid, signal.SIGTERM)
    assert ended(processes) == [Code.stopped, Code.stopped]
    assert cells.log(tmp_path).count("stopped") == 2
    assert not (tmp_path / "result.json").exists()

    assert cells.run(tmp_path, *LONG, *more, processes=3) == [Code.finished] * 3
    assert "continuing after step" in cells.log(tmp_path)
    assert_similar(cells.result(tmp_path), undisturbed(*more))


def test_after_a_process_is_killed_fewer_processes_resume_the_run(tmp_path, undisturbed):
    processes = started(tmp_path, 1)
    processes[1].kill()
    assert ended(processes) == [Code.stopped, -signal.SIGKILL]
    assert "another process of this run is gone" in cells.log(tmp_path)

    assert cells.run(tmp_path, *LONG) == [Code.finished]
    assert_similar(cells.result(tmp_path), undisturbed())
    assert cells.result(tmp_path)["sittings"] == 2


def test_a_process_without_the_files_resumes_from_the_journal_it_receives(tmp_path, undisturbed):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    process = cells.start_waiting(here, LONG)
    cells.wait_until_it_waits(here, process)
    os.kill(process.pid, signal.SIGTERM)
    assert ended([process]) == [Code.stopped]

    port = cells.free_port()
    processes = [
        cells.start(folder, LONG, cells.place(rank, 2, port))
        for rank, folder in enumerate([here, elsewhere])
    ]
    assert ended(processes) == [Code.finished, Code.finished]
    assert_similar(cells.result(here), undisturbed())
    assert {path.name for path in elsewhere.iterdir()} == {"log.txt"}


def test_a_finished_run_is_finished_for_all_processes(tmp_path):
    assert cells.run(tmp_path, processes=2) == [Code.finished] * 2
    assert cells.run(tmp_path, processes=2) == [Code.finished] * 2
    assert "already finished" in cells.log(tmp_path)


def test_a_run_that_cannot_be_split_is_a_one_line_error(tmp_path):
    codes = cells.run(tmp_path, "optimizer=adamw", "parallel.split=candidates", processes=2)
    assert codes == [Code.bad_input] * 2
    assert "parallel.split: given 'candidates'; allowed: batch" in cells.log(tmp_path)
    assert "Traceback" not in cells.log(tmp_path)
