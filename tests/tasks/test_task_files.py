"""Every file in conf/task means the same under any key of a config, not only under ``task``.

A config that trains on several tasks holds each of them under a key of its own. Files are found by
a glob, so a new task is tested without a change here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from lozo_bench.config.files import check_words_in_files

CONF = Path(__file__).resolve().parents[2] / "conf"
# Without those that hold tasks, and are none.
NAMES = sorted(
    path.stem for path in (CONF / "task").glob("*.yaml") if "\nheld_out:" not in path.read_text()
)
# Values that a task's source takes over from the task itself.
INHERITED = {"data_dir": "DIR", "split": "published"}


def compose_tasks(*overrides: str) -> DictConfig:
    """Compose the named tasks and a seed, without the schema, which has one task only."""
    check_words_in_files()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(None, overrides=["+seed=s1", *overrides])


def resolve_task(config: DictConfig, key: str, changed: dict[str, str]) -> dict[str, Any]:
    """Return the task at ``key`` with its interpolations resolved, after some values changed."""
    for name, value in changed.items():
        OmegaConf.update(config, f"{key}.{name}", value)
    resolved = OmegaConf.to_container(OmegaConf.select(config, key), resolve=True)
    assert isinstance(resolved, dict)
    return {str(name): value for name, value in resolved.items()}


def inherited_values(name: str) -> dict[str, str]:
    node = OmegaConf.load(CONF / "task" / f"{name}.yaml")
    return {key: value for key, value in INHERITED.items() if key in node}


@pytest.fixture(scope="module")
def all_tasks() -> DictConfig:
    """All tasks in one config, each under two keys of its own."""
    keys = ("tasks", "suite.tasks")
    return compose_tasks(*(f"+task@{key}.{name}={name}" for key in keys for name in NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_task_resolves_to_the_same_values_under_any_key(name: str, all_tasks: DictConfig) -> None:
    changed = inherited_values(name)
    expected = resolve_task(compose_tasks(f"+task={name}"), "task", changed)
    assert resolve_task(all_tasks, f"tasks.{name}", changed) == expected
    assert resolve_task(all_tasks, f"suite.tasks.{name}", changed) == expected
    for inherited, value in changed.items():
        assert expected["source"][inherited] == value


def test_two_tasks_in_one_config_keep_their_own_data_folders() -> None:
    config = compose_tasks("+task@tasks.first=rte", "+task@tasks.second=rte")
    first = resolve_task(config, "tasks.first", {"data_dir": "A"})
    second = resolve_task(config, "tasks.second", {"data_dir": "B"})
    assert (first["source"]["data_dir"], second["source"]["data_dir"]) == ("A", "B")
