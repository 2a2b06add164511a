"""Hydra's sweeper and launchers of this package, and the exit code of the whole command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.plugin import Plugin

from lozo_bench.launch.cells import Ended
from lozo_bench.runs.outcome import Code
from lozo_bench.runs.status import CellStatus

# The exit code that a shell reports for a program that Ctrl-C ended.
INTERRUPTED = 130

_ended: list[Ended] = []
_stopped: list[Code] = []


def begin() -> None:
    """Forget the cells of an earlier command in the same process."""
    _ended.clear()
    _stopped.clear()


def jobs(cells: Sequence[Ended]) -> list[JobReturn]:
    """Record how cells ended, and return them as Hydra's jobs.

    Hydra does not pass what a launcher returns on to its caller. Every job is returned as
    completed: for a failed one, Hydra would raise an error and skip the remaining batches.
    """
    _ended.extend(cells)
    return [JobReturn(status=JobStatus.COMPLETED, _return_value=int(one.code)) for one in cells]


def ended() -> dict[Path, CellStatus]:
    """Return how the recorded cells ended, by folder."""
    return {one.cell.folder: one.cell for one in _ended}


def stop() -> None:
    """Record that a signal stopped the sweep: no further cell begins."""
    _stopped.append(Code.stopped)


def is_stopped() -> bool:
    """Return whether a signal stopped the sweep."""
    return bool(_stopped)


def exit_code() -> int:
    """Return 1 if any cell failed, 130 if one was stopped, else 0."""
    codes = [*_stopped, *(one.code for one in _ended)]
    if Code.stopped in codes:
        return INTERRUPTED
    return int(any(code in (Code.defect, Code.bad_input) for code in codes))


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
