"""What the earlier attempts of a run recorded in its folder ``wandb``, read with wandb's reader."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

log = logging.getLogger(__name__)


def last_steps(folder: Path, run_id: str) -> dict[str, int]:
    """Return the last step of each number that earlier attempts of a run recorded offline.

    wandb writes a step when the next one begins. So the file of a run that was killed lacks its
    last rows, but has each step up to there as a whole.

    Args:
        folder: the run's folder.
        run_id: its id in wandb.
    """
    steps: dict[str, int] = {}
    for file in sorted(folder.glob(f"wandb/*run-*-{run_id}/run-{run_id}.wandb")):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
        quiet = {**os.environ, "WANDB_ERROR_REPORTING": "false"}  # asks nothing of the network
        read = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
        if read.returncode:
            log.warning(
                "%s cannot be read (%s); steps that it has may stand in wandb twice",
                file,
                " ".join(read.stderr.split()) or f"exit code {read.returncode}",
            )
        for line in read.stdout.splitlines():
            record = json.loads(line)
            if record["type"] == "history":
                step = int(record["history"]["step"]["num"])
                steps |= dict.fromkeys(record["history"]["item"], step)
    return steps
