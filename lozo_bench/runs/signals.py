"""Signals ask a run to stop: they set a flag, and the run stops where it can be resumed.

A signal can arrive at any moment, even during a write to a file, so its handler only sets a flag.
Training, evaluation and scoring call `StopSignal.check` regularly. The run then saves its state and
unwinds, and finally `StopSignal.hand_over` calls the handler that was installed before (submitit's
handler requeues the SLURM job).
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from lozo_bench.errors import Stopped

ASKS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class StopSignal:
    """A flag that signals set. A context manager: its handlers are installed while it is open.

    A second SIGINT raises KeyboardInterrupt at once, as in any program.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Handler] = {}

    def __enter__(self) -> Self:
        for name in ASKS:
            number = signal.Signals[name]
            if signal.getsignal(number) is signal.SIG_IGN:  # set by nohup and for background jobs
                continue
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def cause(self) -> str:
        """Return `` by SIGTERM``, or "" if the signal went to another process of the run."""
        return "" if self.signal is None else f" by {self.signal.name}"

    def check(self) -> None:
        """Return, unless a signal came.

        Raises:
            Stopped: a signal came.
        """
        if self.signal is not None:
            raise Stopped(self.signal.name)

    def hand_over(self) -> None:
        """Call the handler that was installed before this one, if there was one, for the signal.

        Call this only when everything is saved: the handler may end the process.
        """
        if self.signal in (None, signal.SIGINT):
            return
        handler = self._before.get(self.signal)
        if callable(handler):
            handler(self.signal, None)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal is signal.SIGINT and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        # SLURM's final SIGTERM can arrive before the run has stopped for SIGUSR2, which asks for a
        # requeue. SIGUSR2 then decides what happens.
        if self.signal is None or number != signal.SIGTERM:
            self.signal = signal.Signals(number)
