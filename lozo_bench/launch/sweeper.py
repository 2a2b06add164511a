"""Hydra's sweeper, except that all cells are checked before the first one starts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from lozo_bench import launch
from lozo_bench.config.explain import explain
from lozo_bench.config.less_work import interpolations_parsed_once
from lozo_bench.config.loader import RememberingLoader
from lozo_bench.config.schema import Config
from lozo_bench.config.task_list import with_task_lists
from lozo_bench.errors import UserError, bad_value, counted, raise_all
from lozo_bench.launch.checks import check_cell, hydra_config
from lozo_bench.launch.closing import Swept, close
from lozo_bench.launch.estimating import print_estimates
from lozo_bench.progress import progress
from lozo_bench.runs.planned import write_planned


class CheckedSweeper(Sweeper):
    """Makes a cell of each combination of values, as Hydra's own sweeper does.

    Args:
        max_batch_size: the most cells that the launcher gets at once; None: all.
        params: the values of an experiment, by key.
    """

    def __init__(
        self, max_batch_size: int | None = None, params: Mapping[str, str] | None = None
    ) -> None:
        self.max_batch_size, self.params = max_batch_size, params or {}
        self._estimated: list[tuple[Config, Path]] = []  # the cells that are not to be run
        self.config: DictConfig
        self.hydra_context: HydraContext
        self.launcher: Launcher

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra passes to a sweeper, and make the launcher."""
        loader = RememberingLoader(hydra_context.config_loader.get_search_path())
        hydra_context = HydraContext(loader, hydra_context.callbacks)
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Check the cells, then run them.

        Raises:
            UserError: there are no cells, or some are refused. Nothing is written.
        """
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        cells = cells_of(parser, self.params, arguments)
        if not cells:
            raise UserError(f"this sweep has no cells: {_empty(parser, self.params, arguments)}")
        size = len(cells) if self.max_batch_size is None else self.max_batch_size
        if size < 1:
            raise bad_value("hydra.sweeper.max_batch_size", size, "null or a whole number >= 1")
        with interpolations_parsed_once():
            swept = self._checked(cells)
        if self._estimated:
            sys.exit(print_estimates(self._estimated))
        folder = Path(self.config.hydra.sweep.dir).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        write_planned(folder, (cell.folder for cell in swept))
        done: list[Sequence[JobReturn]] = []
        for first in range(0, len(cells), size):
            if not launch.is_stopped():
                batch = cells[first : first + size]
                done.append(self.launcher.launch(batch, initial_job_idx=first))
        close(folder, swept, self.config.tracking)
        for job in (job for batch in done for job in batch):
            _ = job.return_value  # raises the exception of a job of another package's launcher
        return done

    def _checked(self, cells: Sequence[list[str]]) -> list[Swept]:
        """Return the cells with their folders.

        Raises:
            UserError: some are refused.
        """
        loader = self.hydra_context.config_loader
        swept = []
        refused: dict[str, list[list[str]]] = {}  # the cells of each error line
        for cell in progress(cells, "checking the cells"):
            try:
                config = loader.load_sweep_config(self.config, cell)
                values = check_cell(config, ["hydra.sweep.dir", "hydra.sweep.subdir"])
                with hydra_config(config):
                    folder = Path(config.hydra.sweep.dir, config.hydra.sweep.subdir).absolute()
                swept.append(Swept(folder, cell))
                if values.estimate.enabled:
                    self._estimated.append((values, folder))
            except Exception as error:
                reason = explain(error, sys.argv[1:])
                if reason is None:
                    raise
                for line in reason.splitlines():
                    refused.setdefault(line, []).append(cell)
        raise_all(UserError(f"{line}{_which(bad, cells)}") for line, bad in refused.items())
        return swept


def cells_of(
    parser: OverridesParser, params: Mapping[str, str] | None, arguments: Sequence[str]
) -> list[list[str]]:
    """Return the overrides of each cell of a sweep.

    Args:
        parser: Hydra's parser.
        params: the values of an experiment; the command line replaces them.
        arguments: the overrides of the command line.
    """
    texts = [*(f"{key}={values}" for key, values in (params or {}).items()), *arguments]
    cells = BasicSweeper.split_arguments(parser.parse_overrides(texts), None)[0]
    return [with_task_lists(cell) for cell in cells]


def _empty(parser: OverridesParser, params: Mapping[str, str], arguments: Sequence[str]) -> str:
    """Return the first override that is a sweep over nothing."""
    texts = [*(f"{key}={values}" for key, values in params.items()), *arguments]
    return next(text for text in texts if not cells_of(parser, None, [text]))


def _which(bad: Sequence[list[str]], cells: Sequence[list[str]]) -> str:
    """Return which cells are meant: the first one's own overrides and the number of the others."""
    if len(bad) == len(cells):
        return "" if len(cells) == 1 else " (in every cell)"
    common = set.intersection(*map(set, cells))
    first = " ".join(text for text in bad[0] if text not in common)
    others = len(bad) - 1
    more = f" and {counted(others, 'other')}" if others else ""
    return f" (in the cell {first}{more}; no cell was started)"
