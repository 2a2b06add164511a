"""How the cells of a sweep get to their processes, and how that ended."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import ModuleType

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher

from lozo_bench.runs.outcome import Code

# What a shell reports of a program that Ctrl-C ended.
INTERRUPTED = 130

_codes: list[Code] = []


def begin() -> None:
    """Forget the cells of a command before, in the same process."""
    _codes.clear()


def ended(codes: Iterable[Code]) -> None:
    """Take down how cells ended. Hydra passes nothing on from a launcher to who called it."""
    _codes.extend(codes)


def exit_code() -> int:
    """1 if any cell failed, 130 if one was stopped, else 0."""
    if Code.stopped in _codes:
        return INTERRUPTED
    return int(any(code in (Code.defect, Code.bad_input) for code in _codes))


def register(name: str, module: ModuleType, launcher: type[Launcher]) -> None:
    """Let ``hydra_plugins.NAME`` stand for ``module``: Hydra 1.3 takes launchers from there only.

    Args:
        name: as in a launcher's ``_target_``.
        module: where the launcher is.
        launcher: its class.
    """
    launcher.__module__ = f"hydra_plugins.{name}"
    sys.modules[launcher.__module__] = module
    Plugins.instance().register(launcher)
