"""Composes the configs of a sweep's cells in the launcher, so that each folder is known."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from lozo_bench.config.explain import explain
from lozo_bench.launch.cells import Ended, Planned, cell_command
from lozo_bench.launch.checks import hydra_config
from lozo_bench.runs.apart import IN_NAME, chosen, labels
from lozo_bench.runs.outcome import Code
from lozo_bench.runs.status import CellState, CellStatus


def plan(
    context: HydraContext, base: DictConfig, job_overrides: Sequence[Sequence[str]], first: int
) -> Iterator[Planned | Ended]:
    """Compose the cells one by one, each when the caller asks for it.

    Args:
        context: Hydra's context.
        base: the sweep's config.
        job_overrides: the overrides of each cell.
        first: the number of the first cell.

    Yields:
        The cell to run, or an ended one if its config cannot be composed.
    """
    apart = labels([chosen(overrides) for overrides in job_overrides], IN_NAME)
    for number, (overrides, label) in enumerate(zip(job_overrides, apart, strict=True), first):
        try:
            yield _planned(context, base, list(overrides), number, label)
        except Exception as error:
            reason = explain(error, sys.argv[1:])
            if reason is None:
                raise
            folder = Path(base.hydra.sweep.dir).absolute() / f"cell {number}"
            cell = CellStatus(folder, CellState.failed, None, reason, cell_command(overrides))
            yield Ended(cell, Code.bad_input)


def _planned(
    context: HydraContext, base: DictConfig, overrides: list[str], number: int, label: str
) -> Planned:
    config = context.config_loader.load_sweep_config(base, overrides)
    with open_dict(config):
        config.hydra.job.id = str(number)
        config.hydra.job.num = number
    with hydra_config(config):  # the folder's name is resolved from it
        folder = Path(config.hydra.sweep.dir, config.hydra.sweep.subdir).absolute()
    return Planned(config, folder, overrides, label)
