"""Which files of ``conf/`` a run's command chose."""

from __future__ import annotations

from pathlib import Path

from lozo_bench.runs.hydra_files import HYDRA, read_yaml


def files_chosen(folder: Path) -> dict[str, str]:
    """Return the chosen file of each group, by the group's name; empty without a record."""
    try:
        choices = read_yaml(folder / HYDRA / "hydra.yaml")["hydra"]["runtime"]["choices"]
        return {str(group): str(name) for group, name in choices.items() if name is not None}
    except (LookupError, TypeError, AttributeError):
        return {}
