"""The published settings of collections name the published tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cells import composed
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lozo_bench.config.paths import CONF
from lozo_bench.config.resolvers import register_resolver
from lozo_bench.config.task_list import with_task_lists
from lozo_bench.errors import UserError
from lozo_bench.training.checks import check_config, typed

# How many tasks are trained and held out. MetaICL's non_nli_to_nli also trains on SICK, which is
# one of its held-out tasks.
COUNTS = {
    "metaicl_hr_to_lr": (61, 26),
    "metaicl_class_to_class": (43, 20),
    "metaicl_non_class_to_class": (37, 20),
    "metaicl_qa_to_qa": (37, 22),
    "metaicl_non_qa_to_qa": (33, 22),
    "metaicl_non_nli_to_nli": (54, 8),
    "metaicl_non_paraphrase_to_paraphrase": (59, 4),
    "bilevel_clf_same": (6, 5),
}


def members(name: str) -> dict[str, str]:
    """Return the kind of each task in a setting: the file of conf/collection that it is made of."""
    defaults = [str(line) for line in OmegaConf.load(CONF / "task" / f"{name}.yaml").defaults]
    parts = (line.removeprefix("/collection/").split("@tasks.") for line in defaults[:-1])
    return {task: kind for kind, task in parts}


@pytest.mark.parametrize("name", COUNTS)
def test_a_setting_has_the_published_number_of_tasks(name: str) -> None:
    kinds = members(name)
    held_out = [task for task, kind in kinds.items() if kind.startswith("held_out")]
    assert (len(kinds) - len(held_out), len(held_out)) == COUNTS[name]
    assert held_out == list(OmegaConf.load(CONF / "task" / f"{name}.yaml").held_out)
    assert set(kinds.values()) <= {path.stem for path in (CONF / "collection").glob("*.yaml")}


def test_every_file_of_a_setting_is_counted() -> None:
    found = {path.stem for path in (CONF / "task").glob("*.yaml") if "@tasks." in path.read_text()}
    assert found == COUNTS.keys()


def tasks_of(name: str, *overrides: str) -> dict[str, Any]:
    register_resolver()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(None, overrides=[f"+task={name}", *overrides])
    found = OmegaConf.to_container(config, resolve=True)
    assert isinstance(found, dict)
    tasks: dict[str, Any] = found["task"]["tasks"]
    return tasks


def test_each_task_has_a_folder_of_its_own_in_that_of_the_collection() -> None:
    tasks = tasks_of("bilevel_clf_same", "task.data_dir=DIR")
    assert {task["data_dir"] for task in tasks.values()} == {
        str(Path("DIR") / name) for name in tasks
    }
    assert tasks["imdb"]["source"]["data_dir"] == str(Path("DIR") / "imdb")
    assert tasks["imdb"]["source"]["k"] == 16384
    assert tasks["emo"]["source"]["k"] == 16
    assert {task["metric"] for task in tasks.values()} == {"macro_f1"}


def test_a_folder_with_a_colon_has_a_key_without_one() -> None:
    tasks = tasks_of("metaicl_qa_to_qa", "task.data_dir=DIR")
    assert tasks["unifiedqa-mctest"]["data_dir"] == str(Path("DIR") / "unifiedqa:mctest")
    assert {task.get("answer") for task in tasks.values()} == {None, "{answer}\n"}


def test_the_folder_of_the_collection_is_asked_for_unless_the_rows_are_made_up() -> None:
    with pytest.raises(
        UserError, match=r"^task\.data_dir: given None; allowed: the folder of a coll"
    ):
        typed(composed("task=bilevel_clf_same"))
    config, _ = typed(composed("task=bilevel_clf_same", "task.invented_rows=2"))
    assert {task.data_dir for task in config.task.tasks.values()} == {None}


def test_a_setting_passes_all_checks_and_its_folder_has_an_effect() -> None:
    config, _ = typed(composed("task=bilevel_clf_same", "task.data_dir=DIR"))
    check_config(config)
    other, _ = typed(composed(*with_task_lists(["task=[rte,sst2]", "task.data_dir=DIR"])))
    with pytest.raises(UserError, match=r"^task\.data_dir: given 'DIR'; it has no effect"):
        check_config(other)
