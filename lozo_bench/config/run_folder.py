"""A run's folder as a model: which weights it stands for, from ``result.json`` alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lozo_bench.errors import UserError

_OF_WEIGHTS = {"Full", "Head", "BitFit"}  # tunings without an adapter
_RESULT, _HYDRA, _MODEL_CONFIG = "result.json", ".hydra", "config.json"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A finished run that another run starts from.

    Args:
        folder: the run's folder.
        digest: of the run's config.
        step: the step that the run tested.
        weights: the fingerprint of the weights of that step.
        model: the node ``model`` of the run's config.
        tuning: the class that chose what the run trained; "" if its result does not say.
    """

    folder: Path
    digest: str
    step: int
    weights: str
    model: dict[str, Any]
    tuning: str = ""

    @property
    def trained_weights(self) -> bool:
        """Whether the run trained weights of the model itself, so that it has no adapter."""
        of_weights = self.tuning.rpartition(".")[2] in _OF_WEIGHTS
        return of_weights and self.model.get("adapter") is None

    def exported(self, adapter: bool) -> Path:
        """Return the folder inside the run's for its model, or for its adapter alone."""
        return self.folder / f"{'adapter' if adapter else 'model'}-{self.weights[:12]}"


def run_folder(path: str) -> RunFolder | None:
    """Return the run in a folder; None if the folder is not that of a run, or is a model's too.

    Raises:
        UserError: the run is not finished, or its result is damaged.
    """
    folder = Path(path).expanduser()
    if (folder / _MODEL_CONFIG).is_file():
        return None
    file = folder / _RESULT
    if not file.is_file():
        if (folder / _HYDRA).is_dir():
            raise UserError(
                f"{path}: this run is not finished, so that it has no tested step; what to do: "
                "finish it, or write a step with lozo-export --step"
            )
        return None
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
        return RunFolder(
            folder.resolve(),
            str(result["digest"]),
            int(result["best_step"]),
            str(result["weights"]["tested"]),
            dict(result["config"]["model"]),
            str(result["config"].get("tuning", {}).get("_target_", "")),
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{file}: it names no tested weights, so that no run can start from it; what to do: "
            f"lozo-export {path} writes its model"
        ) from error
