"""Keeps access tokens out of command lines, which Hydra writes to files, and out of logs."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence

_SECRET_NAMES = re.compile("TOKEN|KEY|SECRET|PASSWORD", re.IGNORECASE)
_HUGGING_FACE_TOKEN = "hf_[A-Za-z0-9]{20,}"
_MIN_LENGTH = 8
_PROBLEM = (
    "contains an access token, which would be written to the run's files; set HF_TOKEN instead"
)


def secret_in(values: Mapping[str, object]) -> str | None:
    """Return an error line that names the keys of all values with an access token in them."""
    pattern = _pattern()
    keys = [key for key, value in values.items() if pattern.search(str(value))]
    return f"{mask(', '.join(keys))}: {_PROBLEM}" if keys else None


def find_secret(arguments: Sequence[str]) -> str | None:
    """Return an error line, without the token, if an argument contains an access token."""
    pattern = _pattern()
    for number, argument in enumerate(arguments, 1):
        if pattern.search(argument):
            key, equals, _ = argument.partition("=")
            where = key.lstrip("+~") if equals and not pattern.search(key) else f"argument {number}"
            return f"{where}: {_PROBLEM}"
    return None


def mask(text: str) -> str:
    """Return the text with ``***`` in place of each access token."""
    return _pattern().sub("***", text)


class SecretFilter(logging.Filter):
    """Replaces access tokens in log messages and tracebacks with ``***``."""

    def __init__(self) -> None:
        super().__init__()
        self._pattern = _pattern()

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the record's message and traceback; return True, so that every record is logged."""
        record.msg, record.args = self._pattern.sub("***", record.getMessage()), None
        if record.exc_info:
            trace = record.exc_text or logging.Formatter().formatException(record.exc_info)
            record.exc_text = self._pattern.sub("***", trace)
        return True


def _pattern() -> re.Pattern[str]:
    """Return a pattern that matches the environment's secret values and Hugging Face tokens."""
    values = {
        value
        for name, value in os.environ.items()
        # The path of a key file is no secret, and may well be in a command or a message.
        if _SECRET_NAMES.search(name) and len(value) >= _MIN_LENGTH and not os.path.exists(value)  # noqa: PTH110
    }
    longest_first = sorted(values, key=len, reverse=True)
    return re.compile("|".join([*map(re.escape, longest_first), _HUGGING_FACE_TOKEN]))
