"""Signals that ask a run to stop: they set a flag, and the run stops where it can be gone on with.

A signal can come in the middle of anything, a write to a file included. So nothing is done when it
comes: training, evaluation and scoring ask `Stop.check` again and again, the run saves its state
and unwinds, and only then `Stop.hand_over` does what the handler that was there before would have
done at once (submitit's puts the job back into SLURM's queue).
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

ASKS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class Stopped(Exception):  # noqa: N818  # not an error: a request that was met
    """The run was asked to stop, and has."""


class Stop:
    """A flag that signals set. A context manager: handlers are installed while it is open.

    A second SIGINT is not waited for: it interrupts at once, as it does in any program.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Handler] = {}

    def __enter__(self) -> Self:
        for name in ASKS:
            number = signal.Signals[name]
            if signal.getsignal(number) is signal.SIG_IGN:  # as nohup and background jobs have it
                continue
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def told(self) -> str:
        """`` by SIGTERM``; empty if it was another process of the run that was told."""
        return "" if self.signal is None else f" by {self.signal.name}"

    def check(self) -> None:
        """Go on, unless a signal came.

        Raises:
            Stopped: one came.
        """
        if self.signal is not None:
            raise Stopped(self.signal.name)

    def hand_over(self) -> None:
        """Do what the handler before this one does for the signal that came, if it was a function.

        To be called when everything is saved; the handler may end the process.
        """
        if self.signal in (None, signal.SIGINT):
            return
        handler = self._before.get(self.signal)
        if callable(handler):
            handler(self.signal, None)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal is signal.SIGINT and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        # SLURM's last word, SIGTERM, can follow before the run has stopped for the signal that asks
        # for a place in the queue again: that one decides what happens then.
        if self.signal is None or number != signal.SIGTERM:
            self.signal = signal.Signals(number)
