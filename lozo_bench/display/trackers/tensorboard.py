"""TensorBoard: ``tensorboard --logdir outputs`` shows all runs below that folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lozo_bench.display.trackers.base import About
from lozo_bench.errors import UserError


class TensorBoard:
    """Writes event files into the folder ``tensorboard`` of the run.

    The event file of a run that is resumed replaces those that it wrote before: these lack what was
    still in memory when the run was killed.
    """

    failures: tuple[type[Exception], ...] = ()

    def __init__(self, about: About) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                f"tracking=tensorboard: tensorboard cannot be imported ({error}); what to do: "
                "pip install tensorboard, or use tracking=csv or tracking=files"
            ) from error
        folder = str(about.folder / "tensorboard")
        self._writer: Any = SummaryWriter(log_dir=folder, purge_step=0)
        config = json.dumps(about.config, indent=2, default=str)
        self._writer.add_text("config", f"```\n{config}\n```", 0)
        self._step = 0

    def recorded(self, name: str) -> int:
        """Return -1: everything is written again."""
        return -1

    def log(self, step: int, numbers: Mapping[str, float | str]) -> None:
        """Write each number as a scalar; what a step had cost is in the group ``cost``."""
        self._step = step
        for key, value in numbers.items():
            if key != "step" and not isinstance(value, str):
                self._writer.add_scalar(key if "/" in key else f"cost/{key}", value, step)

    def summarize(self, numbers: Mapping[str, float]) -> None:
        """Write the final numbers as scalars of the last step, in the group ``summary``."""
        for key, value in numbers.items():
            self._writer.add_scalar(f"summary/{key.replace('/', '_')}", value, self._step)

    def figure(self, path: Path) -> None:
        """Do nothing: TensorBoard shows no SVG; the figure is in the run's folder."""

    def close(self, failed: bool) -> None:
        """Write what is buffered."""
        self._writer.close()
