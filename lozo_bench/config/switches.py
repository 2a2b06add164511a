"""``estimate=true`` on the command line: a switch of a node, as Hydra composes it."""

from __future__ import annotations

from collections.abc import Sequence

_SWITCHES = {"estimate": "estimate.enabled"}


def with_switches(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with each switch as the key that it sets.

    Hydra itself would put the value in place of the whole node.
    """
    return [_full(argument) for argument in arguments]


def _full(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return f"{_SWITCHES[name]}={value}" if equals and name in _SWITCHES else argument
