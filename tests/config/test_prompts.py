"""``task.prompts`` chooses between the published prompt of a task and an empty one."""

from __future__ import annotations

from typing import Any

import pytest
from cells import composed
from omegaconf import OmegaConf

from lozo_bench.config.digest import digest
from lozo_bench.config.paths import CONF
from lozo_bench.errors import UserError
from lozo_bench.training.checks import checked


def of_task(*overrides: str) -> tuple[Any, dict[str, Any]]:
    config, plain = checked(composed("tracking=files", *overrides))
    return config.task, plain


def test_every_prompt_that_chooses_or_generates_has_an_empty_one() -> None:
    texts = {path.stem: OmegaConf.load(path) for path in (CONF / "task").glob("*.yaml")}
    # Alpaca's prompt is part of its rows.
    with_prompt = {name for name, task in texts.items() if task.get("prompt")} - {"alpaca"}
    assert with_prompt == {name for name, task in texts.items() if task.get("empty_prompt")}


def test_an_empty_prompt_replaces_the_published_one_and_its_calibration() -> None:
    task, _ = of_task("task=sst2", "task.prompts=empty")
    assert (task.prompt, task.calibration) == ("{sentence:strip}", "")
    assert task.options == of_task("task=sst2")[0].options
    task, _ = of_task("task=squad", "task.prompts=empty")
    assert task.calibration is None  # generated answers have none


def test_a_run_with_the_published_prompt_is_the_one_it_was_before_there_were_two() -> None:
    _, plain = of_task("task=rte")
    before = {key: value for key, value in plain["task"].items() if "prompts" not in key}
    del before["empty_prompt"]
    assert digest(plain) == digest({**plain, "task": before})
    _, empty = of_task("task=rte", "task.prompts=empty")
    _, other = of_task("task=rte", "task.prompts=empty", "task.empty_prompt='{premise}'")
    assert len({digest(run) for run in (plain, empty, other)}) == 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("task=alpaca",), "task=alpaca has no empty prompt"),
        (("model=tiny_roberta", "task=reviews"), "a masked model reads the mask"),
        (("model.kind=classifier", "task=reviews"), "a classifier model reads no prompt"),
    ],
)
def test_an_empty_prompt_that_is_not_there_or_not_read_is_refused(
    overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=rf"^task\.prompts: given 'empty'; .*{message}"):
        of_task(*overrides, "task.prompts=empty")
