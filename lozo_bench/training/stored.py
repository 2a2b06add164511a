"""Reads a run's config and records from its folder, and refuses files that contradict each other.

The config is read from `result.json`, or from the header of the journal or of a checkpoint. Former
versions wrote it into neither of the latter. Then it is read from Hydra's `.hydra/config.yaml`. A
later command may have overwritten that file, so its digest must be that of the run.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lozo_bench.config.digest import digest, large_files, with_paths_from
from lozo_bench.config.renamed import with_new_optimizer
from lozo_bench.config.resolvers import register_resolver
from lozo_bench.config.schema import Config
from lozo_bench.errors import UserError
from lozo_bench.runs.blocks import read_header, with_header
from lozo_bench.runs.checkpoints import Checkpoints
from lozo_bench.runs.contents import check_contents, content_hashes
from lozo_bench.runs.files import parse_yaml, read_file
from lozo_bench.runs.history import CHECKPOINTS
from lozo_bench.runs.hydra_files import cwd_of
from lozo_bench.runs.outcome import JOURNAL, RESULT
from lozo_bench.runs.result_file import load_result
from lozo_bench.training.checks import typed

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as it is found in its folder.

    Args:
        folder: the run's folder.
        config: its config.
        digest: the digest of its config.
        result: its result; empty if it is not finished.
    """

    folder: Path
    config: Config
    digest: str
    result: Mapping[str, Any]

    def check_weights(self, step: int, weights: str, device: str) -> None:
        """Compare the fingerprint of rebuilt weights with the one that the result names.

        On another device or with another torch, the difference may be rounding: it is logged.

        Raises:
            UserError: the weights are others, on the same device with the same torch.
        """
        result = self.result
        named = result.get("weights", {})
        steps = {result.get("steps"): "last", result.get("best_step"): "tested"}
        expected = named.get(steps[step]) if step in steps else None
        if expected in (None, weights):
            return
        made = result.get("device"), result.get("versions", {}).get("torch")
        line = f"the rebuilt weights are {weights}, but {self.folder / RESULT} names {expected}"
        if made == (device, torch.__version__):
            raise UserError(
                f"step {step}: {line}; a file of the run is damaged, or this machine rounds in "
                "another way than the one that made the run"
            )
        log.warning(
            "step %d: %s: the run was made on %s with torch %s, and other ones round in another "
            "way", step, line, *made
        )  # fmt: skip


def stored_run(folder: Path) -> StoredRun:
    """Return the run in a folder.

    Raises:
        UserError: there is none, or its files are damaged or do not agree.
    """
    result = load_result(folder)
    if result is not None:
        return _checked(folder, folder / RESULT, result, result)
    header = _header(folder)
    if "config" in header:
        return _checked(folder, folder / JOURNAL, header, {})
    path = folder / ".hydra" / "config.yaml"
    data = read_file(path)
    if data is None:
        raise UserError(f"{folder}: not a run's folder: it contains no {path.name}")
    if "digest" not in header:
        raise UserError(
            f"{folder}: {JOURNAL} is missing or damaged, so that it is not known whether "
            f"{path} is the config of this run; put the journal back"
        )
    try:
        config = parse_yaml(data)
    except ValueError as error:
        raise UserError(f"{path}: contains no config of this version: {error}") from error
    return _checked(folder, path, {**header, "config": config}, {})


def tested_step(folder: Path) -> int:
    """Return the step that a finished run tested.

    Raises:
        UserError: the run is not finished, or its result is damaged.
    """
    result = load_result(folder)
    if result is None:
        raise UserError(f"{folder}: the run is not finished; give a --step")
    if not isinstance(result.get("best_step"), int):
        raise UserError(f"{folder / RESULT}: names no tested step; give a --step")
    return int(result["best_step"])


def journal_of(folder: Path) -> bytes:
    """Return the bytes of a run's journal, empty if there is none.

    Raises:
        UserError: it cannot be read.
    """
    return with_header(read_file(folder / JOURNAL) or b"")


def _header(folder: Path) -> Mapping[str, Any]:
    """Return the header of the run's journal or, if that is lost, of its newest checkpoint."""
    if header := read_header(journal_of(folder)):
        return header
    state = Checkpoints(folder / CHECKPOINTS, keep=1).newest()
    return {} if state is None or state.history is None else dict(state.history["header"])


def _checked(
    folder: Path, path: Path, stored: Mapping[str, Any], result: Mapping[str, Any]
) -> StoredRun:
    """Return the run with the config in ``stored`` if its digest is the one there."""
    try:
        cwd = cwd_of(folder)
        made_with = stored["config"] if cwd is None else with_paths_from(stored["config"], cwd)
        config, plain = _typed(made_with)
        expected = stored["digest"]
    except (OmegaConfBaseException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: contains no config of this version: {error}") from error
    if (found := digest(plain)) != expected:
        raise UserError(
            f"{path}: its config is that of the run {found}, but the folder is of the run "
            f"{expected}: the config was changed, or a model or data folder that it names was "
            "(relative ones are looked for in the current folder)"
        )
    check_contents(stored.get("files", {}), content_hashes(large_files(plain)))
    return StoredRun(folder, config, expected, result)


def config_in(stored: Mapping[str, Any]) -> Config:
    """Return the config that a result or a journal contains, without comparing its digest.

    Raises:
        UserError: it is not one of this version.
    """
    try:
        return _typed(stored)[0]
    except (OmegaConfBaseException, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"not a config of this version: {error}") from error


def _typed(stored: Mapping[str, Any]) -> tuple[Config, dict[str, Any]]:
    register_resolver()  # Hydra's file has the functions that its YAML files call
    config = OmegaConf.create(with_new_optimizer(stored))
    merged = OmegaConf.merge(OmegaConf.structured(Config), config)
    assert isinstance(merged, DictConfig)
    return typed(merged)
