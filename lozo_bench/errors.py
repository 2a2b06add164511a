"""The one kind of error a user can put right, always told in one line.

Anything else that goes wrong is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: says what was wrong, where, what is allowed, and what to do. Exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class BadValueError(UserError):
    """A value that a config key may not have: ``rank.value: given 0; allowed: ...``."""

    def __init__(self, key: str, given: object, allowed: str) -> None:
        super().__init__(f"{key}: given {given!r}; allowed: {allowed}")
        self.key, self.given, self.allowed = key, given, allowed

    def under(self, node: str) -> BadValueError:
        """The same error, its key named from the root of the config."""
        return BadValueError(f"{node}.{self.key}", self.given, self.allowed)


def bad_value(key: str, given: object, allowed: str) -> BadValueError:
    """A config value out of range: ``rank.value: given 0; allowed: a whole number >= 1``."""
    return BadValueError(key, given, allowed)


def bad_data(where: str, problem: str) -> UserError:
    """A malformed input file; ``where`` is ``path`` or ``path:line``."""
    return UserError(f"{where}: {problem}")


def did_you_mean(given: str, choices: Iterable[str]) -> str:
    """`` (did you mean 'rank'?)`` or an empty string, to end a sentence with."""
    close = difflib.get_close_matches(given, list(choices), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
