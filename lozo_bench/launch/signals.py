"""Sets how a process handles the signals that ask a sweep or a cell to stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from lozo_bench.runs.signals import ASKS

SIGNALS = tuple(signal.Signals[name] for name in ASKS)


@contextmanager
def ignored() -> Iterator[None]:
    """Ignore these signals while a helper process is started.

    The helper inherits this and therefore survives the signals.
    """
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def nothing_begun() -> Iterator[None]:
    """Let SIGINT and SIGTERM end this process with one line, while it has nothing to save.

    It imports libraries: in the middle of an import, an exception may end up anywhere.
    """
    usual = (signal.SIG_DFL, signal.default_int_handler)
    before = {
        number: signal.signal(number, _end)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) in usual
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    line = f"stopped by {name} before the run began; the same command starts it\n"
    with suppress(OSError):  # nobody reads it
        os.write(2, line.encode())
    os._exit(128 + number)


def restore_handlers() -> None:
    """Restore the default handlers in a process forked from a helper that ignores the signals."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
