"""Joining the other processes: bounded in time, and stopped at once by a signal."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

import cells
import pytest

from lozo_bench.errors import Stopped, UserError
from lozo_bench.parallel.connect import connect
from lozo_bench.parallel.team import join
from lozo_bench.runs.outcome import Code


@pytest.fixture
def place(monkeypatch):
    """Return a function that sets the variables of one process among several."""

    def place(rank, size, port):
        for name, value in cells.place(rank, size, port).items():
            monkeypatch.setenv(name, value)

    return place


def never():
    """Do not ask to stop."""


def connecting_threads():
    return [one for one in threading.enumerate() if one.name == "connecting"]


def test_a_foreign_program_at_the_address_is_one_line_within_the_time_limit(place):
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        port = foreign.getsockname()[1]
        place(1, 2, port)
        began = time.monotonic()
        with pytest.raises(UserError) as refused:
            connect("gloo", 1, 2, 0.3, never)
        assert time.monotonic() - began < 10
        assert f"process 1 of 2 could not connect to the others at 127.0.0.1:{port}" in str(
            refused.value
        )
        assert "another program may have the port" in str(refused.value)
        for _ in range(2):  # hang up on it: this ends the thread that waits for its reply
            foreign.accept()[0].close()
    for thread in connecting_threads():
        thread.join(20)
    assert not connecting_threads()


@pytest.mark.parametrize(
    ("rank", "missing"),
    [(1, "nobody listens there (Connection refused)"), (0, "process 1, 2 did not come")],
)
def test_processes_that_do_not_come_are_named_after_the_time_limit(place, rank, missing):
    place(rank, 3, cells.free_port())
    with pytest.raises(UserError, match=r"parallel\.timeout_s") as refused:
        connect("gloo", rank, 3, 0.2, never)
    assert missing in str(refused.value)
    assert not connecting_threads()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_waits_for_the_others_stops_at_once(place, rank):
    asked = iter([False, False, True])

    def check():
        if next(asked):
            raise Stopped("SIGTERM")

    place(rank, 2, cells.free_port())
    began = time.monotonic()
    with pytest.raises(Stopped):
        connect("gloo", rank, 2, 1000.0, check)
    assert time.monotonic() - began < 10
    assert not connecting_threads()


@pytest.mark.parametrize(
    ("variable", "value"), [("WORLD_SIZE", "two"), ("RANK", "3"), ("MASTER_PORT", "70000")]
)
def test_a_variable_of_torchrun_that_makes_no_sense_is_one_line(
    place, monkeypatch, variable, value
):
    place(1, 2, 1)
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=f"{variable}: given '?{value}'?; allowed"):
        join("batch", 1.0)


def test_a_signal_ends_a_process_whose_partner_does_not_answer(tmp_path):
    port = cells.free_port()
    waits = cells.start(tmp_path, ["steps=60"], cells.place(0, 2, port))
    silent = cells.start_waiting(tmp_path, ["steps=60"], cells.place(1, 2, port))
    cells.wait_until_it_waits(tmp_path, waits, silent)
    os.kill(waits.pid, signal.SIGTERM)
    waits.join(30)
    assert waits.exitcode == Code.stopped, cells.log(tmp_path)
    cells.go_on(tmp_path)
    silent.join(30)
    assert silent.exitcode == Code.stopped, cells.log(tmp_path)
    log = cells.log(tmp_path)
    assert "stopped by SIGTERM while it waited for the other processes" in log
    assert "another process of this run is gone" in log
    assert "terminate called" not in log
    assert "Traceback" not in log
