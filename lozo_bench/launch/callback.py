"""What Hydra calls after it has composed a command's config and before it makes a folder.

A command that is refused leaves no folder behind, and a mistake that can be seen in the values is
reported before torch is imported.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import env_override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from lozo_bench.config.explain import explain
from lozo_bench.launch.checks import check_cell, hydra_config, without_hydra
from lozo_bench.launch.estimating import print_estimates
from lozo_bench.launch.record import record_command
from lozo_bench.launch.signals import nothing_begun
from lozo_bench.launch.sweeper import cells_of
from lozo_bench.runs.hydra_files import is_cell
from lozo_bench.runs.outcome import Code, is_first_process


class CommandChecks(Callback):
    """Hydra calls it before a run, and before each job of a sweep in the job's process."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Refuse a run that would not begin, before its folder is made.

        It raises SystemExit, because Hydra turns an Exception of a callback into a warning.
        """
        try:
            planned = check_cell(config, ["hydra.run.dir"])
            if not planned.estimate.enabled:
                _say_if_one_of_many(config)
            # Libraries read the environment when they are loaded.
            with env_override(config.hydra.job.env_set), nothing_begun():
                from lozo_bench.training.plan import plan_run

                plan_run(planned)
                if planned.estimate.enabled:
                    with hydra_config(config):
                        folder = Path(config.hydra.run.dir)
                    sys.exit(print_estimates([(planned, folder)]))
        except Exception as error:
            line = explain(error, sys.argv[1:])
            if line is None:
                raise  # a defect; the run meets it, too, and reports it with its traceback
            print(line, file=sys.stderr)
            sys.exit(Code.bad_input)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Record the command, so that the cell is known even if its process dies at once.

        What another run has recorded stays, until this one holds the folder's lock.
        """
        folder = Path(HydraConfig.get().runtime.output_dir)
        if is_cell(folder) or not is_first_process():
            return
        with suppress(OSError):  # the run itself cannot write here either, and says so
            record_command(without_hydra(config), folder)


def _say_if_one_of_many(config: DictConfig) -> None:
    """Say so if the command runs one cell of an experiment that is a sweep."""
    params = config.hydra.sweeper.get("params")
    if not params or not is_first_process():
        return
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    count = len(cells_of(parser, params, config.hydra.overrides.task))
    if count > 1:
        print(f"this is one run; with -m, the same command is a sweep of {count}", file=sys.stderr)
