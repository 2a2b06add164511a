"""The table and the pictures of a sweep as one artifact in wandb, with its figures and report."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lozo_bench.config.schema import TrackingConfig, WandbMode
from lozo_bench.errors import UserError
from lozo_bench.runs.result_file import load_result

log = logging.getLogger(__name__)

_KEPT = ("summary.md", "summary.csv", "*.png", "*.svg", "*.pdf", "*.html")
_SWEEP = "multirun.yaml"  # in the folder of a sweep


def send_sweep(folder: Path, tracking: TrackingConfig) -> None:
    """Log the files that a sweep's folder has directly in it, under one run of the type ``sweep``.

    The run has the same id whenever the sweep is continued, so that the artifact has versions. What
    fails is a line in the log: everything is in the folder.

    Args:
        folder: the sweep's folder.
        tracking: nothing is done unless it enables wandb.
    """
    files = _kept(folder)
    if not tracking.wandb or tracking.mode is WandbMode.disabled or not files:
        return
    try:
        _send(folder, tracking, files)
    except _errors() as error:
        log.warning("the sweep's table was not sent to wandb (%s); it is in %s", error, folder)


def send_file(file: Path, runs: Iterable[Path]) -> list[str]:
    """Log a figure or a report with the table and the pictures of each sweep that it is about.

    Args:
        file: the file, wherever it is.
        runs: the folders of the runs; those that are not finished do not count.

    Returns:
        The names of the artifacts.

    Raises:
        UserError: there is no sweep, or wandb does not take the file.
    """
    found: dict[Path, TrackingConfig] = {}
    for run in runs:
        folder = next((x for x in run.absolute().parents if (x / _SWEEP).is_file()), None)
        if folder is not None and folder not in found and (result := load_result(run)) is not None:
            found[folder] = _tracking_of(result)
    if not found:
        raise UserError("--wandb: no finished run of a sweep (lozo-train -m) is among the runs")
    if all(tracking.mode is WandbMode.disabled for tracking in found.values()):
        raise UserError("--wandb: the sweep was made with tracking.mode=disabled")
    names = []
    for folder, tracking in found.items():
        if tracking.mode is not WandbMode.disabled:
            try:
                names.append(_send(folder, tracking, [*_kept(folder), file]))
            except _errors() as error:
                raise UserError(f"--wandb: {file} was not sent ({error})") from error
    return names


def _kept(folder: Path) -> list[Path]:
    return sorted(file for pattern in _KEPT for file in folder.glob(pattern))


def _tracking_of(result: dict[str, Any]) -> TrackingConfig:
    config = result.get("config")
    node = config.get("tracking") if isinstance(config, dict) else None
    fields = {field.name for field in dataclasses.fields(TrackingConfig)}
    values = {key: x for key, x in (node or {}).items() if key in fields}
    if "mode" in values:
        values["mode"] = WandbMode(values["mode"])
    return TrackingConfig(**values)


def _errors() -> tuple[type[Exception], ...]:
    import wandb

    return wandb.Error, OSError, TimeoutError, ValueError


def _send(folder: Path, tracking: TrackingConfig, files: Sequence[Path]) -> str:
    """Log the files as the next version of the sweep's artifact, and return its name."""
    import wandb

    online = tracking.mode is WandbMode.online
    run = wandb.init(
        project=tracking.project,
        entity=tracking.entity,
        group=tracking.group,
        job_type="sweep",
        name=f"sweep {folder.name}",
        id=f"sweep-{hashlib.blake2b(str(folder).encode(), digest_size=8).hexdigest()}",
        resume="allow",
        dir=folder,
        mode="online" if online else "offline",
        reinit="finish_previous",
        settings=wandb.Settings(silent=True, console="off"),
    )
    artifact = wandb.Artifact(f"sweep-{folder.name}", type="sweep")
    for file in {file.name: file for file in files}.values():
        artifact.add_file(str(file))
    run.log_artifact(artifact)
    run.finish()
    return f"sweep-{folder.name}"
