"""The runs that a sweep consists of, each with its folder, composed as the sweep itself does it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, read_write

from lozo_bench.config import Config, TableConfig
from lozo_bench.digest import register_resolver
from lozo_bench.errors import UserError

Advanced = Callable[[int, int], None]
# Groups whose options are one value each: no other choice depends on theirs.
_VALUES = ("seed", "rank")
_OF_A_SWEEP = ("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper")


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a sweep: what was chosen for it, where its result is, and what makes it."""

    choices: Mapping[str, str]
    folder: Path
    command: str


@dataclass(frozen=True, slots=True)
class Sweep:
    """All runs of one command, that command, and the table they are for."""

    table: TableConfig
    runs: Sequence[Run]
    command: str


@contextmanager
def configs(folder: Path) -> Iterator[None]:
    """Let configs be composed from ``folder``."""
    ConfigStore.instance().store(name="schema", node=Config)
    register_resolver()
    with initialize_config_dir(str(folder), version_base="1.3", job_name="train"):
        yield


def sweep(overrides: Sequence[str], advanced: Advanced = lambda done, of: None) -> Sweep:
    """What ``lozo-train -m`` with these overrides would run.

    ``advanced`` is told how many of the runs are composed.
    """
    table, jobs, composed = planned(overrides)
    runs = []
    for run, _ in composed:
        runs.append(run)
        advanced(len(runs), jobs)
    return Sweep(table, runs, command(["-m", *overrides]))


def planned(overrides: Sequence[str]) -> tuple[TableConfig, int, Iterator[tuple[Run, DictConfig]]]:
    """The table of a sweep, how many runs it has, and each with its config (until the next)."""
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    given = parser.parse_overrides(list(overrides))
    fixed = [_line(override) for override in given if not override.is_sweep_override()]
    base = compose("config", fixed, return_hydra_config=True)
    table = OmegaConf.to_object(base.table)
    assert isinstance(table, TableConfig)
    if base.task.invented_rows:
        table.title += " - on made-up rows: no number here means anything"
    params = [f"{key}={value}" for key, value in (base.hydra.sweeper.params or {}).items()]
    of_hydra = [_line(override) for override in given if override.is_hydra_override()]
    of_runs = [_line(override) for override in given if not override.is_hydra_override()]
    jobs = BasicSweeper.split_arguments(parser.parse_overrides(params + of_runs), None)[0]
    alone = [text for text in of_hydra if not text.startswith(_OF_A_SWEEP)]
    runs = (
        (Run(_choices(job), _folder(config), command(alone + job)), config)
        for job, config in _composed(parser, of_hydra, jobs)
    )
    return table, len(jobs), runs


def _line(override: Override) -> str:
    """An override as it was typed."""
    assert override.input_line is not None
    return override.input_line


def command(words: Sequence[str]) -> str:
    """What to type to run these overrides; how a table is printed is no matter of a run's."""
    kept = [word for word in words if not word.lstrip("+~").startswith("table.")]
    return shlex.join(["lozo-train", *kept])


def _choices(job: Sequence[str]) -> dict[str, str]:
    return dict(text.split("=", 1) for text in job)


def _composed(
    parser: OverridesParser, of_hydra: Sequence[str], jobs: Sequence[list[str]]
) -> Iterator[tuple[list[str], DictConfig]]:
    """Each job with its config.

    To compose one takes a tenth of a second, and jobs that differ only in values share one, which
    is changed from job to job: values do not decide which files are read.
    """
    nodes: dict[str, Any] = {}
    bases: dict[tuple[str, ...], DictConfig] = {}
    for job in jobs:
        settled = tuple(text for text in job if not _is_value(text))
        if settled not in bases:
            bases[settled] = compose("config", [*of_hydra, *settled], return_hydra_config=True)
        config = bases[settled]
        OmegaConf.clear_cache(config)
        values = [text for text in job if _is_value(text)]
        for text in (text for text in values if _group(text) in _VALUES):
            if text not in nodes:
                nodes[text] = compose("config", [*of_hydra, *settled, text])[_group(text)]
            config[_group(text)] = nodes[text].copy()
            with read_write(config.hydra):
                config.hydra.runtime.choices[_group(text)] = text.split("=", 1)[1]
        for override in parser.parse_overrides([t for t in values if _group(t) not in _VALUES]):
            OmegaConf.update(config, override.key_or_group, override.value())
        yield job, config


def _group(text: str) -> str:
    return text.split("=", 1)[0]


def _is_value(text: str) -> bool:
    name, _, value = text.partition("=")
    if name in _VALUES:
        return True
    return name[0].isalpha() and "." in name and "/" not in name and value[:1] not in "{["


def _folder(config: DictConfig) -> Path:
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)  # the folder's name is found with it
    try:
        return Path(config.hydra.sweep.dir, config.hydra.sweep.subdir)
    finally:
        HydraConfig.instance().cfg = before


def value(run: Run, key: str) -> str:
    """What was chosen for ``key``.

    Raises:
        UserError: nothing was, so that no table can be made by it.
    """
    if key not in run.choices:
        raise UserError(
            f"table: {key} is neither swept nor given; there are: {', '.join(run.choices)}"
        )
    return run.choices[key]
