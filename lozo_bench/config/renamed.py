"""Keys of the command line that have another name now; the old ones are still understood."""

from __future__ import annotations

from collections.abc import Sequence

RENAMED = {
    "optimizer.demonstrations": "evaluation.shots",
    "optimizer.sets": "evaluation.sets",
    "optimizer.seed": "evaluation.seed",
    "optimizer.calibrated": "evaluation.calibrated",
    "optimizer.calibrate_shown": "evaluation.calibrate_shown",
}


def with_new_names(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments of a command with today's keys, and a line for each old key."""
    now, notes = [], []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        name = key.lstrip("+")
        if equals and name in RENAMED:
            notes.append(f"{name} is now called {RENAMED[name]}")
            argument = f"{RENAMED[name]}={value}"  # it exists in every config: no + is needed
        now.append(argument)
    return now, notes
