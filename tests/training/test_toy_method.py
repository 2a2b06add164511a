"""The contract between loop and method: a method that uses all of it survives everything."""

from __future__ import annotations

import json
import signal

import pytest
import toy_method
from cells import free_port

from lozo_bench.runs.journal import read

# Passes over the whole set (12 rows) and over batches of upper (4 rows, or the 2 that are left),
# lower (5 rows, or 1) and probe (5 rows, 5, 2). Written out by hand for the six steps.
UPPER = [4, 2, 4, 2, 4, 2]
LOWER = [[5], [1, 5], [1], [5, 1], [5], [1, 5]]
PROBE = [5, 5, 2, 5, 5, 2]
QUERIES = 6 * 12 * 2 + 2 * sum(UPPER) + sum(map(sum, LOWER)) + 3 * sum(PROBE)
FORWARDS = 6 * 2 + 6 * 2 + sum(map(len, LOWER)) + 6 * 3


def outcome(folder):
    return json.loads((folder / "outcome.json").read_text())


def losses(folder):
    steps = read((folder / "journal.bin").read_bytes()).steps
    return [[answer.tolist() for answer in step] for step in steps]


def finish(folder, **options):
    process = toy_method.start(folder, **options)
    process.join(60)
    assert process.exitcode == 0
    return outcome(folder)


@pytest.fixture(scope="module", params=[True, False], ids=["replayable", "full states"])
def straight(request, tmp_path_factory):
    """A run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("straight")
    finish(folder, replayable=request.param)
    return request.param, folder


def test_passes_over_all_streams_are_counted(straight):
    found = outcome(straight[1])
    assert (found["queries"], found["tokens"]) == (QUERIES, QUERIES)  # a row has one token
    assert found["forwards"] == FORWARDS


def test_a_candidate_whose_loss_is_nan_is_counted_and_reported_in_every_step(straight):
    found = outcome(straight[1])
    assert found["bad_candidates"] == toy_method.STEPS
    bad = [event for event in found["events"] if event[1] == "bad_candidates"]
    assert bad == [[step, "bad_candidates", {"candidates": 1}] for step in range(1, 7)]


def test_events_are_reported_at_the_step_they_happen(straight):
    found = outcome(straight[1])
    assert [step for step, name, _ in found["events"] if name == "gate"] == [1, 2, 3, 4, 5, 6]


def test_losses_of_all_streams_are_recorded_in_the_order_they_were_asked_for(straight):
    shapes = [[len(answer) for answer in step] for step in losses(straight[1])]
    assert shapes == [[2, 2, *[1] * (1 + t % 2), 3] for t in range(6)]


def test_killed_at_every_step_it_ends_with_the_same_bits(tmp_path, straight):
    replayable, folder = straight
    for step in range(1, toy_method.STEPS + 1):
        process = toy_method.start(tmp_path, replayable=replayable, kill_at=step)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
    found, wanted = finish(tmp_path, replayable=replayable), outcome(folder)
    for key in ("weights", "w", "gate", "best_step", "test", "forwards", "queries", "tokens"):
        assert found[key] == wanted[key], key
    assert str(losses(tmp_path)) == str(losses(folder))  # as texts, in which NaN equals NaN


@pytest.mark.parametrize("checks", [1, 2, 3, 5, 7, 11, 17])
def test_stopped_anywhere_again_and_again_it_ends_with_the_same_bits(tmp_path, straight, checks):
    """Each attempt is asked to stop after so many more checks, wherever that is in a step."""
    replayable, folder = straight
    exits = []
    for attempt in range(1, 40):
        more = {"stop_after": checks * attempt} if attempt < 12 else {}
        process = toy_method.start(tmp_path, replayable=replayable, **more)
        process.join(60)
        exits.append(process.exitcode)
        if process.exitcode == 0:
            break
    assert set(exits[:-1]) == {toy_method.STOPPED}
    assert exits[-1] == 0
    found, wanted = outcome(tmp_path), outcome(folder)
    for key in ("weights", "w", "gate", "best_step", "test", "forwards", "queries", "tokens"):
        assert found[key] == wanted[key], key


def test_the_best_step_is_tested_with_its_own_gate(straight):
    found = outcome(straight[1])
    assert found["best_step"] < toy_method.STEPS
    gate_then = next(
        values["value"]
        for step, name, values in found["events"]
        if (step, name) == (found["best_step"], "gate")
    )
    assert found["gate"] == [pytest.approx(gate_then, abs=0)]
    assert found["weights"]["tested"] != found["weights"]["last"]


def test_two_processes_make_the_run_of_one(tmp_path):
    alone = finish(tmp_path / "one", replayable=True)
    port = free_port()
    both = [
        toy_method.start(tmp_path / "two", replayable=True, rank=rank, processes=2, port=port)
        for rank in range(2)
    ]
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    together = outcome(tmp_path / "two")
    assert together["w"] == pytest.approx(alone["w"], abs=1e-4)
    assert together["gate"] == alone["gate"]
    for key in ("forwards", "queries", "tokens", "bad_candidates", "best_step"):
        assert together[key] == alone[key]
