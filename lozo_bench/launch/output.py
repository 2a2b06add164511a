"""Keeps a command running when nobody reads what it prints any more.

``lozo-train -m ... | head`` closes the pipe after some lines. The cells write their files all the
same, so the sweep goes on, and what it prints from then on is lost.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

# A terminal or pipe whose other end is gone. Nobody can read a message about it.
_NO_READER = {errno.EPIPE, errno.EIO}


@contextmanager
def lasting_output() -> Iterator[None]:
    """Ignore errors of standard output and standard error: what nobody can read is lost."""
    _open_what_is_closed()
    before = sys.stdout, sys.stderr
    sys.stdout = lasting_out = _Lasting(sys.stdout, "standard output")
    sys.stderr = lasting_err = _Lasting(sys.stderr, "standard error")
    try:
        yield
    finally:
        lasting_out.flush()  # Python's own flush at the exit would report an error
        lasting_err.flush()
        sys.stdout, sys.stderr = before


class _Lasting:
    """A text stream whose writes never fail: what is written after a failure is lost."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name

    def write(self, text: str) -> int:
        """Write the text, or lose it."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        """Write what is buffered, or lose it."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # for what is buffered and for helper programs, too
        os.close(nowhere)
        if error.errno not in _NO_READER:
            print(
                f"{self._name}: {error.strerror}; what this command prints there is lost from now "
                "on, but its files are written",
                file=sys.stderr,
            )


def _open_what_is_closed() -> None:
    """Let closed standard streams lead nowhere.

    Otherwise, the next file that is opened gets the number, and a library that prints writes into
    it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)
    nothing: Any = None  # what Python sets instead of a stream that is closed at its start
    if sys.stdout is nothing:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is nothing:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
