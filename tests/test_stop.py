"""A signal sets a flag, and nothing else."""

from __future__ import annotations

import os
import signal

import pytest

from lozo_bench.launch.signals import SIGNALS, heed
from lozo_bench.stop import ASKS, Stop, Stopped


@pytest.fixture(autouse=True)
def heard():
    """Start with Python's own handlers: a shell may ignore SIGINT, as ``nohup`` and ``&`` do."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heed()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ASKS)
def test_a_signal_is_noticed_at_the_next_check(name):
    with Stop() as stop:
        stop.check()
        os.kill(os.getpid(), signal.Signals[name])
        with pytest.raises(Stopped, match=name):
            stop.check()
        assert stop.told() == f" by {name}"


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(signal.Signals[name]) for name in ASKS]
    with Stop():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(signal.Signals[name]) for name in ASKS] == before


def test_a_second_ctrl_c_is_not_waited_for():
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal is signal.SIGINT


def test_what_another_handler_would_have_done_is_done_when_it_is_safe():
    calls = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: calls.append(number))
    try:
        with Stop() as stop:
            stop.hand_over()
            os.kill(os.getpid(), signal.SIGUSR2)
            assert calls == []
            stop.hand_over()
            assert calls == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_signal_that_is_ignored_stays_so():
    """A job in the background, or under nohup, is not to be stopped by what others are told."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            stop.check()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("names", [("SIGUSR2", "SIGTERM"), ("SIGTERM", "SIGUSR2")])
def test_a_request_to_come_again_is_not_lost_to_a_request_to_end(names):
    """SLURM sends both, and a run may notice neither before the second has come."""
    with Stop() as stop:
        for name in names:
            os.kill(os.getpid(), signal.Signals[name])
        assert stop.signal is signal.SIGUSR2
