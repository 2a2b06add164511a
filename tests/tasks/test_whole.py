from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tasks.joined_rows import task_of

from lozo_bench.config.build import build
from lozo_bench.errors import UserError
from lozo_bench.tasks.whole import Whole

if TYPE_CHECKING:
    from collections.abc import Callable

CONF = Path(__file__).resolve().parents[2] / "conf" / "task"
# For each task: its files, their content with one row, and the texts and the label of the row.
FILES = {
    "mrpc_head": (
        ("train.tsv", "dev.tsv"),
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tone\ttwo\n",
        (["one", "two"], 1),
    ),
    "rte_head": (
        ("train.tsv", "dev.tsv"),
        "index\tsentence1\tsentence2\tlabel\n0\tone\ttwo\tnot_entailment\n",
        (["one", "two"], 1),
    ),
    "sst2_head": (("train.tsv", "dev.tsv"), "sentence\tlabel\none \t1\n", (["one "], 1)),
    "mnli_head": (
        ("train.tsv", "dev_matched.tsv"),
        "index\tgenre\tsentence1\tsentence2\tlabel1\tgold_label\n0\tx\tone\ttwo\t-\tneutral\n",
        (["one", "two"], 1),
    ),
    "qqp_head": (
        ("train.tsv", "dev.tsv"),
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tone\ttwo\t0\n",
        (["one", "two"], 0),
    ),
    "qnli_head": (
        ("train.tsv", "dev.tsv"),
        "index\tquestion\tsentence\tlabel\n0\tone\ttwo\tentailment\n",
        (["one", "two"], 0),
    ),
    "cola_head": (("train.tsv", "dev.tsv"), "gj04\t0\t*\tone\n", (["one"], 0)),
    "boolq_head": (
        ("train.jsonl", "val.jsonl"),
        '{"question": "two", "passage": "one", "idx": 0, "label": true}\n',
        (["one", "two"], 1),
    ),
    "copa_head": (
        ("train.jsonl", "val.jsonl"),
        '{"premise": "one", "choice1": "two", "choice2": "three", "question": "cause", "label": 1}'
        "\n",
        (["one", "because", "two", "three"], 1),
    ),
    "cb_head": (
        ("train.jsonl", "val.jsonl"),
        '{"premise": "one", "hypothesis": "two", "label": "contradiction", "idx": 0}\n',
        (["one", "two"], 1),
    ),
}


def test_every_task_is_in_the_table() -> None:
    assert sorted(FILES) == sorted(path.stem for path in CONF.glob("*_head.yaml"))


@pytest.mark.parametrize("name", FILES)
def test_task_reads_its_files_and_its_hub_columns_match_its_fields(
    name: str, tmp_path: Path
) -> None:
    files, text, (texts, label) = FILES[name]
    for file in files:
        (tmp_path / file).write_text(text)
    source = build(task_of(name, tmp_path)["source"], "task.source")
    splits = source.splits()
    for rows in (splits.train, splits.dev, splits.test):
        (row,) = rows
        assert (list(row.fields.values()), row.label) == (texts, label)
    assert isinstance(source, Whole)
    assert source.hub is not None
    assert list(source.hub.fields) == list(source.layout.fields)
    assert set(source.hub.labels.values()) in (set(), set(source.layout.labels))


def rows_of(folder: Path, **changed: Any) -> tuple[list[str], list[str], list[str]]:
    train = "".join(f"row {n}\t{n % 2}\n" for n in range(10))
    (folder / "train.tsv").write_text("sentence\tlabel\n" + train)
    (folder / "dev.tsv").write_text("sentence\tlabel\nseen\t1\nunseen\t0\n")
    splits = build(task_of("sst2_head", folder)["source"] | changed, "task.source").splits()
    train_rows, dev, test = (
        [row.fields["sentence"] for row in rows] for rows in (splits.train, splits.dev, splits.test)
    )
    return train_rows, dev, test


def test_all_train_rows_are_trained_on_and_the_test_rows_are_the_dev_rows(tmp_path: Path) -> None:
    train, dev, test = rows_of(tmp_path)
    assert train == [f"row {n}" for n in range(10)]
    assert dev == test == ["seen", "unseen"]


def test_held_out_rows_are_dev_rows_and_are_not_trained_on(tmp_path: Path) -> None:
    train, dev, test = rows_of(tmp_path, held_out=3)
    assert (len(train), len(dev)) == (7, 3)
    assert {*train, *dev} == {f"row {n}" for n in range(10)}
    assert test == ["seen", "unseen"]
    assert rows_of(tmp_path, held_out=3, seed=1)[1] != dev


def test_holding_out_every_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^task\.source\.held_out: given 10; .* has 10 train rows"):
        rows_of(tmp_path, held_out=10)


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"held_out": -1}, "held_out"),
        ({"seed": -1}, "seed"),
        ({"files": {"train": "train"}}, "files"),
        ({"hub": None}, "hub"),
    ],
)
def test_arguments_out_of_range_are_refused(changed: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=rf"^task\.source\.{key}: given "):
        build(task_of("sst2_head", None)["source"] | changed, "task.source")


def test_boolq_has_the_passage_first(real_data: Callable[[str], Path]) -> None:
    folder = real_data("superglue") / "BoolQ"
    splits = build(task_of("boolq_head", folder)["source"], "task.source").splits()
    assert list(splits.train[0].fields) == ["passage", "question"]
    assert splits.train[0].fields["question"].startswith("is ghost in the shell")
