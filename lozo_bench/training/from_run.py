"""A run that starts from another one: ``model.path`` or ``model.adapter`` is a run's folder.

The model of the other run's tested step is written once, into that run's folder, under the
fingerprint of its weights. Then it is loaded like any other.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from lozo_bench.config.run_folder import RunFolder, run_folder
from lozo_bench.config.schema import Config
from lozo_bench.errors import UserError
from lozo_bench.parallel.team import Team
from lozo_bench.tuning.save import needs_this_package

log = logging.getLogger(__name__)


def from_runs(config: Config, team: Team) -> Config:
    """Return the config with the models of runs in place of the runs; they are written if missing.

    The first process writes them, and the others wait.

    Raises:
        UserError: the other run's weights cannot be made again, or what it trained is no model or
            no adapter.
    """
    model = config.model
    runs = {
        key: run
        for key in ("path", "adapter")
        if (path := getattr(model, key)) is not None and (run := run_folder(path)) is not None
    }
    if not runs:
        return config
    try:
        if team.rank == 0:
            for key, run in runs.items():
                _write(run, key)
    finally:
        team.from_first(b"")
    folders: dict[str, Any] = {
        key: str(run.exported(adapter=key == "adapter")) for key, run in runs.items()
    }
    return dataclasses.replace(config, model=dataclasses.replace(model, **folders))


def _write(run: RunFolder, key: str) -> None:
    out = run.exported(adapter=key == "adapter")
    if out.is_dir():
        return
    from lozo_bench.training.replay import (
        rebuild,
    )  # it builds the other run, and so needs this file

    log.info("model.%s: writing the weights of step %d of %s", key, run.step, run.folder)
    rebuilt = rebuild(run.folder, run.step)
    if key == "path" and needs_this_package(rebuilt.built.loaded.model):
        raise UserError(
            f"model.path: {run.folder} trained a prefix, a prompt or shortcuts, which cannot be "
            f"added to the weights; what to do: model.path={run.model['path']} "
            f"model.adapter={run.folder}, with the same tuning"
        )
    try:
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=run.folder))
    except OSError as error:
        raise UserError(
            f"{run.folder}: {error.strerror}; what to do: lozo-export {run.folder} --out DIR, and "
            f"model.{key}=DIR"
        ) from error
    try:
        form = rebuilt.save(draft, merge=key == "path")
        if key == "adapter" and form == "weights":
            raise UserError(
                f"model.adapter: {run.folder} trained weights of the model, and no adapter; what "
                f"to do: model.path={run.folder}"
            )
        with suppress(OSError):  # another process was faster
            draft.replace(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
