"""The errors that a user can correct. Each mistake is reported in one line.

Any other exception is a bug of this package and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class UserError(ValueError):
    """Bad input from the user. The program exits with code 2.

    The message names what is wrong, where it is, what is allowed and what to do. It is one line.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(printable(message).split()))


class BadValueError(UserError):
    """A config value that is not allowed: ``rank.value: given 0; allowed: ...``."""

    def __init__(self, key: str, given: object, allowed: str) -> None:
        super().__init__(f"{key}: given {given!r}; allowed: {allowed}")
        self.key, self.given, self.allowed = key, given, allowed

    def under(self, node: str) -> BadValueError:
        """Return the same error with its key prefixed by ``node``, the config node it is in."""
        return BadValueError(f"{node}.{self.key}", self.given, self.allowed)


class CombinedError(UserError):
    """Several mistakes that are reported together, one line for each."""

    def __init__(self, errors: Sequence[UserError]) -> None:
        ValueError.__init__(self, "\n".join(str(error) for error in errors))
        self.errors = errors

    def under(self, node: str) -> CombinedError:
        """Return the same errors; the keys of bad values are prefixed by ``node``."""
        return CombinedError(
            [e.under(node) if isinstance(e, BadValueError) else e for e in self.errors]
        )


def raise_all(errors: Iterable[UserError]) -> None:
    """Raise all ``errors`` as one exception; do nothing if there are none.

    Raises:
        UserError: the error itself if there is only one, else a `CombinedError`.
    """
    found = list(errors)
    if len(found) == 1:
        raise found[0]
    if found:
        raise CombinedError(found)


def bad_value(key: str, given: object, allowed: str) -> BadValueError:
    """Return the error for a value that a config key does not allow.

    Its message reads ``rank.value: given 0; allowed: a whole number >= 1``.
    """
    return BadValueError(key, given, allowed)


def bad_data(where: str, problem: str) -> UserError:
    """Return the error for a malformed input file; ``where`` is ``path`` or ``path:line``."""
    return UserError(f"{where}: {problem}")


def printable(text: str) -> str:
    """Return the text with half surrogate pairs, which cannot be printed, as escapes.

    A row of data or the name of a file can have them.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def counted(number: int, noun: str) -> str:
    """Return ``1 row`` or ``2 rows``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def did_you_mean(given: str, choices: Iterable[str]) -> str:
    """Return a suffix such as `` (did you mean 'rank'?)``, empty if no choice is similar."""
    close = difflib.get_close_matches(given, list(choices), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


class Stopped(Exception):  # noqa: N818  # not an error: the run did as it was asked
    """The run was asked to stop and has stopped."""
