"""The runs of a sweep and their folders, composed in the same way as the sweep composes them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, read_write

from lozo_bench.config.explain import explain
from lozo_bench.config.files import check_words_in_files
from lozo_bench.config.less_work import interpolations_parsed_once
from lozo_bench.config.loader import RememberingLoader
from lozo_bench.config.resolvers import register_resolver
from lozo_bench.config.schema import Config, TableConfig
from lozo_bench.config.task_list import with_task_lists
from lozo_bench.errors import UserError
from lozo_bench.runs.outcome import Code

Advanced = Callable[[int, int], None]  # called with the runs composed so far and their total
MADE_UP = "on made-up rows: the numbers are meaningless"
# Each option of these groups sets one value, and no other choice depends on it.
_VALUES = ("seed", "rank")
_COMMAND_LINE = "command-line"  # the provider of the folder that --config-dir adds
_SWEEP_ONLY = ("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper")


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a sweep.

    Args:
        choices: the value of each override of the run, by key.
        folder: the folder that holds the result.
        command: the command that runs it alone.
    """

    choices: Mapping[str, str]
    folder: Path
    command: str


@dataclass(frozen=True, slots=True)
class Sweep:
    """All runs of one ``lozo-train -m`` command, that command, and the table that they fill."""

    table: TableConfig
    runs: Sequence[Run]
    command: str


@contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """End the program with exit code 2 and one line if the context finds the user's mistake."""
    try:
        yield
    except Exception as error:
        line = explain(error, sys.argv[1:])
        if line is None:
            raise
        print(line, file=sys.stderr)
        sys.exit(Code.bad_input)


@contextmanager
def configs(folder: Path, own: Path | None = None) -> Iterator[None]:
    """Within this context, compose configs from YAML files.

    Args:
        folder: the folder with all groups.
        own: a further folder with options of the same groups, as ``--config-dir`` adds it.

    Raises:
        UserError: the further folder does not exist.
    """
    ConfigStore.instance().store(name="schema", node=Config)
    register_resolver()
    check_words_in_files()
    if own is not None and not own.is_dir():
        raise UserError(f"--config-dir: given {own}; allowed: a folder with groups of YAML files")
    with (
        interpolations_parsed_once(),
        initialize_config_dir(str(folder), version_base="1.3", job_name="train"),
    ):
        if own is not None:
            _add_to_search_path(own.resolve())
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        hydra.config_loader = RememberingLoader(hydra.config_loader.get_search_path())
        yield


def _add_to_search_path(own: Path) -> None:
    """Let Hydra search this folder where ``lozo-train --config-dir`` lets it."""
    path = GlobalHydra.instance().config_loader().get_search_path()
    schema = SearchPathQuery(provider="schema")
    path.prepend(provider=_COMMAND_LINE, path=f"file://{own}", anchor=schema)
    GlobalHydra.instance().clear()
    Hydra.create_main_hydra2(task_name="train", config_search_path=path)


def sweep(overrides: Sequence[str], advanced: Advanced = lambda done, of: None) -> Sweep:
    """Return the runs that ``lozo-train -m`` would start with these overrides.

    Args:
        overrides: the overrides of the command line.
        advanced: called after each run is composed, with the number done and the total.
    """
    table, jobs, composed = compose_runs(overrides)
    runs = []
    for run, _ in composed:
        runs.append(run)
        advanced(len(runs), jobs)
    return Sweep(table, runs, sweep_command(["-m", *overrides]))


def compose_runs(
    overrides: Sequence[str],
) -> tuple[TableConfig, int, Iterator[tuple[Run, DictConfig]]]:
    """Compose the runs of a sweep one by one.

    Returns:
        The table, the number of runs, and an iterator of each run with its config. A config is
        valid only until the iterator advances.
    """
    table, hydra_overrides, jobs = _planned(overrides)
    kept_for_one_run = [text for text in hydra_overrides if not text.startswith(_SWEEP_ONLY)]
    runs = (
        (Run(_choices(job), _folder(config), sweep_command(kept_for_one_run + job)), config)
        for job, config in _composed(hydra_overrides, jobs)
    )
    return table, len(jobs), runs


def choices_of_runs(overrides: Sequence[str]) -> tuple[TableConfig, list[Mapping[str, str]]]:
    """Return the table of a sweep and the choices of each run, which need no config of each run."""
    table, _, jobs = _planned(overrides)
    return table, [_choices(job) for job in jobs]


def _planned(overrides: Sequence[str]) -> tuple[TableConfig, list[str], list[list[str]]]:
    """Return a sweep's table, the overrides of ``hydra`` and those of each run."""
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    given = parser.parse_overrides(list(overrides))
    fixed = [_line(override) for override in given if not override.is_sweep_override()]
    base = compose("config", with_task_lists(fixed), return_hydra_config=True)
    table = OmegaConf.to_object(base.table)
    assert isinstance(table, TableConfig)
    if base.task.invented_rows:
        table.title += f" - {MADE_UP}"
    params = [f"{key}={choice_of}" for key, choice_of in (base.hydra.sweeper.params or {}).items()]
    hydra_overrides = [_line(override) for override in given if override.is_hydra_override()]
    run_overrides = [_line(override) for override in given if not override.is_hydra_override()]
    jobs = BasicSweeper.split_arguments(parser.parse_overrides(params + run_overrides), None)[0]
    return table, hydra_overrides, jobs


def _line(override: Override) -> str:
    """Return an override as the user typed it."""
    assert override.input_line is not None
    return override.input_line


def sweep_command(words: Sequence[str]) -> str:
    """Return the ``lozo-train`` command; omits ``table.`` keys, which do not affect a run."""
    kept = [word for word in words if not word.lstrip("+~").startswith("table.")]
    search_path = GlobalHydra.instance().config_loader().get_search_path().get_path()
    flags = [
        f"--config-dir={entry.path.removeprefix('file://')}"
        for entry in search_path
        if entry.provider == _COMMAND_LINE and entry.path is not None
    ]
    return shlex.join(["lozo-train", *flags, *kept])


def _choices(job: Sequence[str]) -> dict[str, str]:
    return dict(text.split("=", 1) for text in job)


def _composed(
    hydra_overrides: Sequence[str], jobs: Sequence[list[str]]
) -> Iterator[tuple[list[str], DictConfig]]:
    """Yield each job with its config.

    Composing a config takes a tenth of a second. Jobs that differ only in values share one config,
    which is modified in place from job to job, because values do not decide which files are read.
    """
    loader = GlobalHydra.instance().config_loader()
    assert isinstance(loader, RememberingLoader)
    nodes: dict[str, Any] = {}
    bases: dict[tuple[str, ...], DictConfig] = {}
    for job in jobs:
        file_choices = tuple(text for text in job if not _is_value(text))
        values = [text for text in job if _is_value(text)]
        options = [text for text in values if _group(text) in _VALUES]
        if file_choices not in bases:
            overrides = with_task_lists([*hydra_overrides, *file_choices, *options])
            bases[file_choices] = compose("config", overrides, return_hydra_config=True)
            config = bases[file_choices]
            nodes.update({text: config[_group(text)].copy() for text in options})
        config = bases[file_choices]
        OmegaConf.clear_cache(config)
        for text in options:
            if text not in nodes:
                overrides = with_task_lists([*hydra_overrides, *file_choices, text])
                nodes[text] = compose("config", overrides)[_group(text)]
            config[_group(text)] = nodes[text].copy()
            with read_write(config.hydra):
                config.hydra.runtime.choices[_group(text)] = text.split("=", 1)[1]
        for override in loader.parse([t for t in values if _group(t) not in _VALUES]):
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
    state: Any = HydraConfig.instance()
    before = state.cfg
    # The interpolations in the folder's name read it; `set_config` would copy all of it.
    state.cfg = config
    try:
        return Path(config.hydra.sweep.dir, config.hydra.sweep.subdir)
    finally:
        state.cfg = before


def choice_of(choices: Mapping[str, str], key: str) -> str:
    """Return the value of ``key`` in a run with these choices.

    Raises:
        UserError: the sweep does not set the key, so a table cannot have rows or columns by it.
    """
    if key not in choices:
        raise UserError(
            f"table: {key} is neither swept nor set; the sweep sets: {', '.join(choices)}"
        )
    return choices[key]
