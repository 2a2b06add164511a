"""What sets runs apart: ``lr=1e-3``, from the overrides of the commands that made them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

# What the name of a run's folder says already, and what the folders above it do.
IN_NAME = ("optimizer", "tuning", "method", "rank", "rank.value", "seed", "seed.value")
IN_PATH = (*IN_NAME, "task", "model", "sweep")
SEEDS = ("seed", "seed.value")
# Keys that say where a run is made and how it is recorded, not what it is.
_NOT_PART_OF_A_RESULT = (
    "hydra",
    "tracking",
    "table",
    "estimate",
    "sweep",
    "rerun",
    "checkpoint",
    "parallel",
    "plugins",
    "predictions",
)
_SMALL = 0.01  # numbers below it are written with an exponent
_LISTED_TASK = "task@task.tasks."


def chosen(overrides: Sequence[str]) -> dict[str, str]:
    """Return the values that the overrides of a run give, by key; a list of tasks as one value."""
    given = [text.partition("=") for text in overrides if "=" in text and text[:1] != "~"]
    choices = {key.lstrip("+"): value for key, _, value in given}
    tasks = [key.removeprefix(_LISTED_TASK) for key in choices if key.startswith(_LISTED_TASK)]
    if tasks and choices.get("task") == "several":
        choices["task"] = f"[{','.join(tasks)}]"
    return {
        key: value
        for key, value in choices.items()
        if key.partition(".")[0].partition("/")[0] not in _NOT_PART_OF_A_RESULT
        and not key.startswith(_LISTED_TASK)
    }


def differing(runs: Sequence[Mapping[str, str]], besides: Collection[str] = ()) -> list[str]:
    """Return the keys in which runs differ, in the order in which they were given.

    Args:
        runs: the choices of each run. A run without a key differs from one that has it.
        besides: keys that are left out.
    """
    keys = dict.fromkeys(key for choices in runs for key in choices if key not in besides)
    return [key for key in keys if len({as_number(choices.get(key, "")) for choices in runs}) > 1]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return ``lr`` for ``optimizer.lr``, or the full key if two end in the same word."""
    names = {key: _short(key) for key in keys}
    counts = list(names.values())
    return {key: name if counts.count(name) == 1 else key for key, name in names.items()}


def labels(runs: Sequence[Mapping[str, str]], besides: Collection[str] = ()) -> list[str]:
    """Return for each run what sets it apart from the others, such as ``lr=1e-3 steps=60``.

    Args:
        runs: the choices of each run.
        besides: keys that are left out.
    """
    keys = differing(runs, besides)
    return [_label(choices, keys) for choices in runs]


def own_label(choices: Mapping[str, str]) -> str:
    """Return all that was set for a run and that its folder's name does not say."""
    return _label(choices, [key for key in choices if key not in IN_PATH])


def _label(choices: Mapping[str, str], keys: Sequence[str]) -> str:
    names = short_names(keys)
    return " ".join(f"{names[key]}={spelled(choices[key])}" for key in keys if key in choices)


def spelled(value: str) -> str:
    """Return a value as one would type it: 1e-3 for the 0.001 and the 1e-03 that Hydra makes."""
    if not re.fullmatch(r"-?[\d.]+(e-\d+)?", value):
        return value
    number = as_number(value)
    if not isinstance(number, float) or not 0 < abs(number) < _SMALL:
        return value
    mantissa, _, exponent = f"{number:.15e}".partition("e-")
    return f"{mantissa.rstrip('0').rstrip('.')}e-{int(exponent)}"


def _short(key: str) -> str:
    return key.removesuffix(".value").rpartition(".")[2]


def as_number(value: str) -> float | str:
    """Return the number that a text stands for, or the text: 1e-3 and 0.001 are the same value."""
    try:
        return float(value)
    except ValueError:
        return value
