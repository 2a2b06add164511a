from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tasks.joined_rows import task_of

from lozo_bench.config.build import build
from lozo_bench.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from lozo_bench.tasks.base import Splits


def splits_of(folder: Path, rows: list[dict[str, str]], **changed: Any) -> Splits:
    (folder / "alpaca_data.json").write_text(json.dumps(rows))
    splits: Splits = build(task_of("alpaca", folder)["source"] | changed, "task.source").splits()
    return splits


def some_rows(number: int) -> list[dict[str, str]]:
    return [{"instruction": f"ask {n}", "input": "", "output": str(n)} for n in range(number)]


def answers(examples: list[Any]) -> list[int]:
    return [int(example.answers[0]) for example in examples]


def test_rows_are_drawn_as_the_library_datasets_draws_them(tmp_path: Path) -> None:
    """As `Dataset.train_test_split(test_size=0.1, seed=42)` did for 23 rows."""
    splits = splits_of(tmp_path, some_rows(23))
    assert answers(splits.test) == [18, 10, 17]
    assert answers(splits.train) == [
        22, 16, 15, 7, 6, 9, 3, 0, 19, 12, 5, 11, 14, 21, 2, 4, 20, 1, 13, 8,
    ]  # fmt: skip
    assert splits.dev == splits.test


def test_the_request_depends_on_whether_the_row_has_an_input(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
        {"instruction": "Say hi.", "input": " ", "output": "hi"},
    ]
    splits = splits_of(tmp_path, rows, test_share=0.5)
    requests = {row.answers[0]: row.fields["request"] for row in (*splits.train, *splits.test)}
    assert requests["hi"] == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nSay hi.\n\n### Response:\n"
    )
    assert requests["3"] == (
        "Below is an instruction that describes a task, paired with an input that provides further "
        "context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:\n"
    )


def test_a_row_without_an_answer_is_left_out_after_the_draw(tmp_path: Path) -> None:
    rows = some_rows(23)
    rows[10]["output"] = ""
    splits = splits_of(tmp_path, rows)
    assert answers(splits.test) == [18, 17]
    assert len(splits.train) == 20


def test_held_out_rows_are_dev_rows_and_are_not_trained_on(tmp_path: Path) -> None:
    splits = splits_of(tmp_path, some_rows(23), held_out=4)
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (16, 4, 3)
    drawn = answers([*splits.train, *splits.dev, *splits.test])
    assert sorted(drawn) == list(range(23))
    with pytest.raises(UserError, match=r"^task\.source\.held_out: given 20; there are 20 train"):
        splits_of(tmp_path, some_rows(23), held_out=20)


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"test_share": 1.0}, "test_share"),
        ({"held_out": -1}, "held_out"),
        ({"seed": -1}, "seed"),
        ({"fields": {"instruction": "instruction"}}, "fields"),
        ({"hub": None}, "hub"),
        ({"with_input": "{"}, "with_input"),
    ],
)
def test_arguments_that_are_not_allowed_are_refused(changed: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=rf"^task\.source\.{key}: given "):
        build(task_of("alpaca", None)["source"] | changed, "task.source")
