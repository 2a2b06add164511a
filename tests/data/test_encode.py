"""From rows to tokens, through the command: what a run says about rows that are cut."""

from __future__ import annotations

import pytest

SMALL = ("model=tiny_opt", "task=reviews", "task.invented_rows=4", "tracking=files")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("steps=1", "task.max_length=8"),
            ["train: 4 of 4 rows", "dev: 4 of 4 rows", "test: 4 of 4 rows", "max_length=8 allows"],
        ),
        # Without training only the test rows matter; demonstrations go first.
        (
            ("optimizer=icl", "evaluation.shots=2", "task.max_length=24"),
            ["test: 4 of 4 rows are longer than task.max_length=24 allows and were cut, the first"],
        ),
    ],
)
def test_a_run_says_how_many_rows_are_cut(command, arguments, said):
    code, _, err = command(*SMALL, *arguments)
    assert code == 0, err
    assert [words for words in said if words not in err] == []
    assert err.count(" allows and were cut") == (1 if "optimizer=icl" in arguments else 3)
