"""The table and the pictures of a sweep as one artifact in wandb."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from lozo_bench.config.schema import TrackingConfig, WandbMode

log = logging.getLogger(__name__)

_KEPT = ("summary.md", "summary.csv", "*.png", "*.svg", "*.pdf", "*.html")


def send_sweep(folder: Path, tracking: TrackingConfig) -> None:
    """Log the files that a sweep's folder has directly in it, under one run of the type ``sweep``.

    The run has the same id whenever the sweep is continued, so that the artifact has versions. What
    fails is a line in the log: everything is in the folder.

    Args:
        folder: the sweep's folder.
        tracking: nothing is done unless it enables wandb.
    """
    files = sorted(file for pattern in _KEPT for file in folder.glob(pattern))
    if not tracking.wandb or tracking.mode is WandbMode.disabled or not files:
        return
    import wandb

    online = tracking.mode is WandbMode.online
    try:
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
        for file in files:
            artifact.add_file(str(file))
        run.log_artifact(artifact)
        run.finish()
    except (wandb.Error, OSError, TimeoutError, ValueError) as error:
        log.warning("the sweep's table was not sent to wandb (%s); it is in %s", error, folder)
