"""Prints estimates in place of running cells; torch is imported only then."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

from lozo_bench.config.schema import Config
from lozo_bench.launch.signals import nothing_begun
from lozo_bench.runs.outcome import Code
from lozo_bench.runs.status import lasting_console


def print_estimates(cells: Sequence[tuple[Config, Path]]) -> Code:
    """Print what runs would need and cost, given their configs and folders.

    Returns:
        The exit code: `Code.bad_input` if a run would not fit or could not be estimated.
    """
    with nothing_begun():
        from lozo_bench.estimate.table import Asked, print_estimates
    asked = [Asked(config, folder) for config, folder in cells]
    gc.freeze()  # a garbage collection takes 0.3 s longer with all that torch has imported
    try:
        fits = print_estimates(asked, lasting_console())
    finally:
        gc.unfreeze()
    return Code.finished if fits else Code.bad_input
