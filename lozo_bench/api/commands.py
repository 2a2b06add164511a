"""What ``lozo-train`` does, as calls: one run in this process, or a sweep."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose
from hydra.core.utils import env_override
from omegaconf import DictConfig

from lozo_bench.api.result import Result
from lozo_bench.config.explain import explain
from lozo_bench.config.paths import CONF
from lozo_bench.config.renamed import with_new_names
from lozo_bench.config.secrets import find_secret
from lozo_bench.config.task_list import with_task_lists
from lozo_bench.config.words import check_arguments
from lozo_bench.errors import UserError
from lozo_bench.launch.checks import check_cell, hydra_config, without_hydra
from lozo_bench.launch.record import record_command
from lozo_bench.runs.outcome import Code
from lozo_bench.tables.cells import configs
from lozo_bench.tables.cells import sweep as cells_of


def run(overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> Result:
    """Make one run in this process, unless it is finished already, and return its result.

    It is the run that ``lozo-train`` makes with the same words, in the same folder. An interrupted
    one continues.

    Args:
        overrides: the words of the command line, such as ``["optimizer=lozo", "steps=200"]``.
        config_dir: a folder of your own with YAML files, as ``--config-dir``.

    Raises:
        UserError: a word is wrong, the data are bad, the model cannot be loaded, ... What ended a
            run that had begun is in its folder too, for ``lozo-status``.
    """
    words = _checked(overrides)
    with _explained(words), configs(CONF, None if config_dir is None else Path(config_dir)):
        config = compose("config", words, return_hydra_config=True)
        check_cell(config, ["hydra.run.dir"])
        with hydra_config(config), env_override(config.hydra.job.env_set):
            return _run(config)


def _run(config: DictConfig) -> Result:
    from lozo_bench.launch.loaded import run as training

    folder, own = Path(config.hydra.run.dir).absolute(), without_hydra(config)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        training.run(own, folder, record=lambda: record_command(own, folder))
    except Exception as error:
        training.note_failure(error, folder)
        raise
    return Result.read(folder)


def sweep(overrides: Sequence[str], config_dir: str | Path | None = None) -> list[Result]:
    """Make the runs of a sweep, as ``lozo-train -m`` does, and return their results in its order.

    The sweep has a process of its own, with the launcher that ``hydra/launcher=...`` names. A run
    that fails has the status ``failed`` and its reason; the others go on.

    Args:
        overrides: the words of the command line, such as ``["optimizer=lozo,mezo", "seed=s0,s1"]``.
        config_dir: a folder of your own with YAML files, as ``--config-dir``.

    Raises:
        UserError: the sweep was refused.
    """
    words = _checked(overrides)
    with _explained(words), configs(CONF, None if config_dir is None else Path(config_dir)):
        cells = cells_of(words)
    flags = [] if config_dir is None else [f"--config-dir={Path(config_dir).absolute()}"]
    code, last = _command(["-m", *flags, *words])
    if code == Code.bad_input:
        raise UserError(last)
    return [Result.read(cell.folder) for cell in cells.runs]


def _command(words: Sequence[str]) -> tuple[int, str]:
    """Run the command, print what it prints, and return its exit code and its last line."""
    here = os.pathsep.join(filter(None, [*sys.path, os.environ.get("PYTHONPATH", "")]))
    last = ""
    with subprocess.Popen(
        [sys.executable, "-m", "lozo_bench.train", *words],
        env=os.environ | {"PYTHONPATH": here},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:  # a notebook shows what this process prints, not its child
            print(line, end="", flush=True)
            last = line.strip() or last
    return process.returncode, last


def _checked(overrides: Sequence[str]) -> list[str]:
    """Return the words with the names of today, if none is an access token or badly written."""
    if (secret := find_secret(list(overrides))) is not None:
        raise UserError(secret)
    if any(word.lstrip("+").startswith(("estimate=", "estimate.enabled=")) for word in overrides):
        raise UserError(
            "estimate: given in a call that makes runs; what to do: lozo-train ... estimate=true"
        )
    words, _ = with_new_names(list(overrides))
    words = with_task_lists(words)
    check_arguments(words)
    return words


@contextmanager
def _explained(words: Sequence[str]) -> Iterator[None]:
    """Turn what Hydra says about a wrong word into one line, as on the command line."""
    try:
        yield
    except Exception as error:
        line = explain(error, list(words))
        if line is None or isinstance(error, UserError):
            raise
        raise UserError(line) from error
