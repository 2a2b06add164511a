from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from omegaconf import OmegaConf

from lozo_bench.config.build import build
from lozo_bench.errors import UserError
from lozo_bench.tasks.subsample import Subsample

if TYPE_CHECKING:
    from collections.abc import Callable

CONF = Path(__file__).resolve().parents[2] / "conf" / "task"


def sst2(data_dir: Path | None, **changed: Any) -> Subsample:
    """Build the source of conf/task/sst2.yaml as a run does."""
    config = OmegaConf.create({"task": OmegaConf.load(CONF / "sst2.yaml"), "seed": {"value": 5}})
    config.task.data_dir = None if data_dir is None else str(data_dir)
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    made = build(plain["task"]["source"] | changed, "task.source")
    assert isinstance(made, Subsample)
    return made


def line(where: str) -> int:
    return int(where.rpartition(":")[2])


def test_sst2_draws_the_published_rows(real_data: Callable[[str], Path]) -> None:
    splits = sst2(real_data("sst2")).splits()
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (1000, 500, 872)
    # The first indices that MeZO's code draws. Row n is in line n + 2, below the header.
    rows = [line(example.where) - 2 for example in splits.train[:5]]
    assert rows == [43787, 16159, 59015, 5108, 67052]
    assert [line(e.where) - 2 for e in splits.test[:5]] == [372, 676, 548, 293, 382]


def test_train_and_dev_share_no_row(real_data: Callable[[str], Path]) -> None:
    splits = sst2(real_data("sst2")).splits()
    rows = {example.where for example in splits.train + splits.dev}
    assert len(rows) == 1500


def write_jsonl(folder: Path, rows: int) -> Path:
    lines = [json.dumps({"sentence": f"text {n}", "label": n % 2}) for n in range(rows)]
    (folder / "train.jsonl").write_text("\n".join(lines))
    (folder / "dev.jsonl").write_text("\n".join(lines))
    return folder


def test_jsonl_files_are_read_too(tmp_path: Path) -> None:
    splits = sst2(write_jsonl(tmp_path, 10), num_train=6, num_dev=2, num_test=3).splits()
    # numpy's legacy permutation of 10 under seed 0 is 2 8 4 9 1 6 7 3 0 5
    assert [e.fields["sentence"] for e in splits.train] == [f"text {n}" for n in (2, 8, 4, 9, 1, 6)]
    assert [e.fields["sentence"] for e in splits.dev] == ["text 7", "text 3"]
    assert [(e.fields["sentence"], e.label) for e in splits.test] == [
        ("text 2", 0),
        ("text 8", 0),
        ("text 4", 0),
    ]


def test_dev_set_keeps_its_size_and_train_set_shrinks_if_there_are_few_rows(tmp_path: Path) -> None:
    splits = sst2(write_jsonl(tmp_path, 10), num_train=100, num_dev=8).splits()
    assert (len(splits.train), len(splits.dev)) == (2, 8)


def test_empty_train_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task\.source\.num_dev: given 500; .* has 10 train rows"):
        sst2(write_jsonl(tmp_path, 10)).splits()


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"num_train": 0}, "num_train"),
        ({"num_dev": 0}, "num_dev"),
        ({"num_test": -1}, "num_test"),
        ({"seed": -1}, "seed"),
        ({"files": {"train": "train"}}, "files"),
        ({"hub": None}, "hub"),
        ({"join_spans": True}, "join_spans"),
        ({"split": "sane"}, "split"),
        ({"num_dev": {"sane": 5}, "split": "same"}, "split"),
        ({"num_dev": {"sane": 0}, "split": "sane"}, "num_dev"),
        ({"options": {"colum": "x"}}, "options"),
        ({"options": {"column": "x", "into": "sentence"}}, "options"),
        ({"options": {"column": "x"}}, "hub.options"),
        ({"answers": ["x"]}, "hub.answers"),
    ],
)
def test_arguments_out_of_range_are_refused(changed: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=rf"^task\.source\.{key}: given "):
        sst2(None, **changed)
