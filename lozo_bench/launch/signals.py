"""The signals that ask a sweep, and a cell, to stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from lozo_bench.stop import ASKS

SIGNALS = tuple(signal.Signals[name] for name in ASKS)


@contextmanager
def ignored() -> Iterator[None]:
    """While a helper is started that must outlive them: it begins with these signals ignored."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def heed() -> None:
    """Hear them again, in a process that was forked from a helper which ignores them."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
