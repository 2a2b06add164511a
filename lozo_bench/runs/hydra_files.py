"""What Hydra's files in a run's folder say: its command, its choices and its files of values."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from lozo_bench.runs.apart import chosen
from lozo_bench.runs.files import parse_yaml, read_file

T = TypeVar("T")
_NOTHING: Mapping[str, Any] = {}
HYDRA = ".hydra"  # the folder with the config and the command of a run
# Overrides that belong to the sweep, and those that would delete what a cell has done.
_SWEEP_OVERRIDES = (
    "hydra.mode=",
    "hydra/launcher=",
    "hydra.launcher",
    "hydra/sweeper=",
    "hydra.sweeper",
)
_RERUN_OVERRIDES = ("rerun=", "+rerun=", "++rerun=")
# Groups whose options may set values of an optimizer too.
_SETTING = ("method", "experiment", "variant")


def is_cell(folder: Path) -> bool:
    """Return whether the folder has the config of a run."""
    # Path.is_file raises if the folder cannot be entered.
    return os.path.isfile(folder / HYDRA / "config.yaml")  # noqa: PTH113


def _flags(hydra: Mapping[str, Any]) -> list[str]:
    """Return the command-line options with which Hydra found the config."""
    flags = [
        f"--config-dir={source['path']}"
        for source in hydra["runtime"]["config_sources"]
        if source["provider"] == "command-line"
    ]
    name = hydra["job"]["config_name"]
    return flags if name == "config" else [*flags, f"--config-name={name}"]


def command_of(folder: Path) -> str:
    """Return the command that runs the cell in ``folder`` alone, or "" if it is unknown."""
    return _recorded(folder, _command_of, "")


def _command_of(hydra: Mapping[str, Any]) -> str:
    overrides = hydra["overrides"]
    alone = [
        text for text in overrides["hydra"] if not text.lstrip("+~").startswith(_SWEEP_OVERRIDES)
    ]
    if hydra["mode"] == "MULTIRUN":  # a sweep does not use hydra.run.dir
        alone = [text for text in alone if not text.startswith("hydra.run.dir=")]
    words = ["lozo-train", *_flags(hydra)]
    words += [text for text in overrides["task"] if not text.startswith(_RERUN_OVERRIDES)] + alone
    cwd = hydra["runtime"]["cwd"]
    prefix = "" if Path(cwd) == Path.cwd() else f"cd {shlex.quote(cwd)} && "
    return prefix + shlex.join(words)


def cwd_of(folder: Path) -> Path | None:
    """Return the folder in which the run's command was given; None if it is unknown."""
    return _recorded(folder, lambda hydra: Path(hydra["runtime"]["cwd"]), None)


def values_of(folder: Path, lr: float | None = None) -> str:
    """Return a line that names the files with a cell's default values; empty if unknown.

    Args:
        folder: the cell's folder.
        lr: its learning rate. If nobody chose it, the line says what to try.
    """
    return _recorded(folder, lambda hydra: _values_of(hydra, lr), "")


def _values_of(hydra: Mapping[str, Any], lr: float | None) -> str:
    runtime = hydra["runtime"]
    choices = runtime["choices"]
    name = f"tuned/{choices['tuned']}.yaml"
    folders = [source["path"] for source in runtime["config_sources"] if source["schema"] == "file"]
    tuned = any((Path(directory) / name).is_file() for directory in folders)
    files = [f"conf/{name}" if tuned else f"conf/optimizer/{choices['optimizer']}.yaml"]
    others = _SETTING[1:] if tuned else _SETTING  # a tuned file overrides the method's
    files += [f"conf/{group}/{choices[group]}.yaml" for group in others if choices.get(group)]
    absent = "" if tuned else f"there is no conf/{name}: "
    line = f"{absent}values not given on the command line are from {' and '.join(files)}"
    if not lr or len(files) > 1 or tuned or "optimizer.lr" in chosen(hydra["overrides"]["task"]):
        return line
    grid = ",".join(f"{lr * factor:g}" for factor in (0.1, 1, 10))
    return (
        f"{line}. Its optimizer.lr={lr:g} was not tuned for this model and task: compare "
        f"-m optimizer.lr={grid}"
    )


def own_choices(folder: Path) -> dict[str, str]:
    """Return the values that the run's command gives, by key."""
    return _recorded(folder, lambda hydra: chosen(hydra["overrides"]["task"]), {})


def files_chosen(folder: Path) -> dict[str, str]:
    """Return the chosen file of each group, by the group's name; empty without a record."""
    options = _recorded(folder, _options, _NOTHING)
    return {str(group): str(name) for group, name in options.items() if name is not None}


def _options(hydra: Mapping[str, Any]) -> Mapping[str, Any]:
    options: Mapping[str, Any] = hydra["runtime"]["choices"]
    return options


def _recorded(folder: Path, read: Callable[[Mapping[str, Any]], T], unknown: T) -> T:
    """Return what ``read`` finds in the record of a run's command, or else ``unknown``."""
    with suppress(LookupError, TypeError, AttributeError):  # a damaged or unfinished file
        return read(read_yaml(folder / HYDRA / "hydra.yaml")["hydra"])
    return unknown


def read_yaml(path: Path) -> Mapping[str, Any]:
    """Read a YAML file of Hydra's; return {} if it is missing, damaged or only partly written."""
    try:
        read = parse_yaml(read_file(path) or b"")
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}
