"""Keeps the config and the command of a run in its folder, in the files that Hydra calls .hydra.

Hydra itself would write them before the run is checked, over those of an unfinished run.
"""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from lozo_bench.runs.atomic import write_text
from lozo_bench.runs.hydra_files import HYDRA


def record_command(config: DictConfig, folder: Path) -> None:
    """Write the files with the names and contents that Hydra gives them.

    ``config.yaml`` makes a folder that of a run, so it comes last.

    Args:
        config: the run's config, without its ``hydra`` node, which `HydraConfig` has.
        folder: the run's folder.

    Raises:
        OSError: the disk is full, or the permission is missing.
    """
    hydra = HydraConfig.get()
    below = folder / HYDRA
    below.mkdir(parents=True, exist_ok=True)
    for name, node in {
        "overrides.yaml": hydra.overrides.task,
        "hydra.yaml": OmegaConf.create({"hydra": hydra}),
        "config.yaml": config,
    }.items():
        path, text = below / name, OmegaConf.to_yaml(node)
        if not path.is_file() or path.read_bytes() != text.encode():
            write_text(path, text)
