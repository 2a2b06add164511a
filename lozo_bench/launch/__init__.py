"""Hydra's sweeper and launchers of this package, and the exit code of the whole command."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import ModuleType

from hydra.core.plugins import Plugins
from hydra.plugins.plugin import Plugin

from lozo_bench.runs.outcome import Code

# The exit code that a shell reports for a program that Ctrl-C ended.
INTERRUPTED = 130

_codes: list[Code] = []


def begin() -> None:
    """Forget the codes of an earlier command in the same process."""
    _codes.clear()


def add_codes(codes: Iterable[Code]) -> None:
    """Record how cells ended. Hydra does not pass a launcher's return value on to its caller."""
    _codes.extend(codes)


def exit_code() -> int:
    """Return 1 if any cell failed, 130 if one was stopped, else 0."""
    if Code.stopped in _codes:
        return INTERRUPTED
    return int(any(code in (Code.defect, Code.bad_input) for code in _codes))


def register(name: str, module: ModuleType, plugin: type[Plugin]) -> None:
    """Make ``hydra_plugins.NAME`` refer to ``module``.

    Hydra 1.3 accepts plugins only from the package ``hydra_plugins``.

    Args:
        name: NAME, as it is written in a plugin's ``_target_``.
        module: the module that defines the plugin.
        plugin: the class of the launcher or sweeper.
    """
    plugin.__module__ = f"hydra_plugins.{name}"
    sys.modules[plugin.__module__] = module
    Plugins.instance().register(plugin)
