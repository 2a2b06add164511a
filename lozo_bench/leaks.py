"""Access tokens: neither on a command line, which Hydra writes down, nor in a log."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence

_NAMES = re.compile("TOKEN|KEY|SECRET|PASSWORD", re.IGNORECASE)
_HUGGING_FACE = "hf_[A-Za-z0-9]{20,}"
_SHORTEST = 8


def found_in(arguments: Sequence[str]) -> str | None:
    """One line if an argument holds an access token, without the token; else None."""
    secret = _pattern()
    for number, argument in enumerate(arguments, 1):
        if secret.search(argument):
            key, equals, _ = argument.partition("=")
            where = key.lstrip("+~") if equals and not secret.search(key) else f"argument {number}"
            return (
                f"{where}: holds an access token, which would be written to the run's files; "
                "set HF_TOKEN instead"
            )
    return None


class Masked(logging.Filter):
    """Puts ``***`` where a log message or its traceback holds an access token."""

    def __init__(self) -> None:
        super().__init__()
        self._secret = _pattern()

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; every record passes."""
        record.msg, record.args = self._secret.sub("***", record.getMessage()), None
        if record.exc_info:
            trace = record.exc_text or logging.Formatter().formatException(record.exc_info)
            record.exc_text = self._secret.sub("***", trace)
        return True


def _pattern() -> re.Pattern[str]:
    """Finds what this process's environment keeps secret, and what looks like a hub's token."""
    values = {
        value
        for name, value in os.environ.items()
        # A path to a key is no secret, and may well be in a command or a message.
        if _NAMES.search(name) and len(value) >= _SHORTEST and not os.path.exists(value)  # noqa: PTH110
    }
    longest_first = sorted(values, key=len, reverse=True)
    return re.compile("|".join([*map(re.escape, longest_first), _HUGGING_FACE]))
