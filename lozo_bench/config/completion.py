"""What tab completion offers after ``schedule=``: every word that the schema allows there."""

from __future__ import annotations

from enum import Enum

from lozo_bench.config.words import type_at


def allowed_words(line: str) -> list[str]:
    """Return the completions of a command line whose last word gives a value from a fixed set.

    Hydra itself offers the present value only, under a name that Python gives it. Empty: the last
    word is something else, which Hydra completes.
    """
    key, equals, begun = (line.split(" ")[-1]).partition("=")
    hint = type_at(key.lstrip("+")) if equals else None
    if hint is bool:
        words = ["true", "false"]
    elif isinstance(hint, type) and issubclass(hint, Enum):
        words = [option.name for option in hint]
    else:
        return []
    return [f"{key}={word}" for word in words if word.startswith(begun)]
