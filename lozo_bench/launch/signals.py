"""Sets how a process handles the signals that ask a sweep or a cell to stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

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


def restore_handlers() -> None:
    """Restore the default handlers in a process forked from a helper that ignores the signals."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
