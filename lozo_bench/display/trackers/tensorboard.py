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

    Steps that an interrupted run makes again replace those that it made before.
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
        again = about.known_step + 1 if about.known_step else None
        folder = str(about.folder / "tensorboard")
        self._writer: Any = SummaryWriter(log_dir=folder, purge_step=again)
        config = json.dumps(about.config, indent=2, default=str)
        self._writer.add_text("config", f"```\n{config}\n```", about.known_step)
        self._step = about.known_step

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
