"""A signal only sets a flag; handlers that were installed before run later."""

from __future__ import annotations

import os
import signal

import pytest

from lozo_bench.errors import Stopped
from lozo_bench.launch.signals import SIGNALS, restore_handlers
from lozo_bench.runs.signals import ASKS, StopSignal


@pytest.fixture(autouse=True)
def heard():
    """Start with Python's own handlers: a shell may ignore SIGINT, as ``nohup`` and ``&`` do."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    restore_handlers()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ASKS)
def test_a_signal_is_noticed_at_the_next_check(name):
    with StopSignal() as stop:
        stop.check()
        os.kill(os.getpid(), signal.Signals[name])
        with pytest.raises(Stopped, match=name):
            stop.check()
        assert stop.cause() == f" by {name}"


def test_the_previous_handlers_are_restored():
    before = [signal.getsignal(signal.Signals[name]) for name in ASKS]
    with StopSignal():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(signal.Signals[name]) for name in ASKS] == before


def test_a_second_ctrl_c_interrupts_at_once():
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal is signal.SIGINT


def test_the_previous_handler_is_called_by_hand_over():
    calls = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: calls.append(number))
    try:
        with StopSignal() as stop:
            stop.hand_over()
            os.kill(os.getpid(), signal.SIGUSR2)
            assert calls == []
            stop.hand_over()
            assert calls == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_an_ignored_signal_stays_ignored():
    """Signals to a process group must not stop a background job or one under nohup."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            stop.check()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("names", [("SIGUSR2", "SIGTERM"), ("SIGTERM", "SIGUSR2")])
def test_sigusr2_takes_precedence_over_sigterm(names):
    """SLURM sends both, and the second may arrive before the run has noticed the first."""
    with StopSignal() as stop:
        for name in names:
            os.kill(os.getpid(), signal.Signals[name])
        assert stop.signal is signal.SIGUSR2
