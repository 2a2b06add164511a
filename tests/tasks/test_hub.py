"""Reading from the hub. Tests have no network; `load_dataset` reads a local folder the same way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from lozo_bench.errors import UserError
from lozo_bench.tasks.hub import Hub
from lozo_bench.tasks.kshot import KShot
from lozo_bench.tasks.subsample import Subsample

if TYPE_CHECKING:
    from pathlib import Path

NODE: dict[str, Any] = {
    "path": "somewhere/questions",
    "train": "train",
    "test": "test",
    "fields": {"question": "text"},
    "label": "coarse",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_MODULES_CACHE", str(tmp_path / "modules"))


def local(folder: Path, rows: list[dict[str, Any]]) -> Path:
    data = folder / "data"
    data.mkdir()
    for split in ("train", "test"):
        (data / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return data


def with_class_names(folder: Path, labels: list[int]) -> Path:
    from datasets import ClassLabel, Dataset, Features, Value

    data = folder / "data"
    data.mkdir()
    features = Features({"text": Value("string"), "coarse": ClassLabel(names=["ABBR", "DESC"])})
    rows = {"text": [f"text {n}" for n in range(len(labels))], "coarse": labels}
    Dataset.from_dict(rows, features=features).to_parquet(data / "train.parquet")
    return data


def test_labels_with_names_on_the_hub_are_translated_by_name(tmp_path: Path) -> None:
    path = str(with_class_names(tmp_path, [0, 1, -1]))
    hub = Hub.from_config(NODE | {"path": path, "labels": {"ABBR": "2"}}, ["question"])
    rows = hub.read("train", "do this")
    assert [row.values for row in rows] == [
        {"text": "text 0", "coarse": "2"},
        {"text": "text 1", "coarse": "DESC"},
        {"text": "text 2", "coarse": "-"},
    ]
    assert rows[2].where == f"hub:{path}/train:2"


def test_integer_labels_are_read_as_text(tmp_path: Path) -> None:
    path = str(local(tmp_path, [{"text": "one", "coarse": 1, "more": 5}]))
    rows = Hub.from_config(NODE | {"path": path}, ["question"]).read("train", "do this")
    assert [row.values for row in rows] == [{"text": "one", "coarse": "1"}]


def test_k_shot_source_draws_from_the_hub(tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "coarse": n % 2} for n in range(10)]
    splits = KShot(
        data_dir=None,
        full_dir=None,
        hub=NODE | {"path": str(local(tmp_path, rows))},
        k=2,
        seed=42,
        files={"train": "train", "dev": "dev", "test": "test"},
        full_files={"train": "train", "test": "test"},
        fields={"question": "sentence"},
        label="label",
        labels=["0", "1"],
    ).splits()
    # numpy's legacy permutation of 10 under seed 42 is 8 1 5 0 7 2 9 4 3 6
    assert [e.fields["question"] for e in splits.train] == ["text 8", "text 0", "text 1", "text 5"]
    assert [e.label for e in splits.train] == [0, 0, 1, 1]
    assert len(splits.test) == 10


def test_subsample_source_draws_from_the_hub(tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "coarse": n % 2} for n in range(10)]
    splits = Subsample(
        data_dir=None,
        hub=NODE | {"path": str(local(tmp_path, rows))},
        fields={"question": "sentence"},
        label="label",
        labels=["0", "1"],
        files={"train": "train", "test": "dev"},
        num_train=3,
        num_dev=2,
        num_test=1,
    ).splits()
    # numpy's legacy permutation of 10 under seed 0 is 2 8 4 9 1 6 7 3 0 5
    assert [e.fields["question"] for e in splits.train] == ["text 2", "text 8", "text 4"]
    assert [e.label for e in splits.dev] == [1, 1]
    assert [e.fields["question"] for e in splits.test] == ["text 2"]


def test_missing_column_is_reported_with_the_present_columns(tmp_path: Path) -> None:
    path = str(local(tmp_path, [{"txt": "one", "coarse": 1}]))
    hub = Hub.from_config(NODE | {"path": path}, ["question"])
    with pytest.raises(UserError, match=r"no column 'text'; there are 'txt', 'coarse'"):
        hub.read("train", "do this")


def test_a_missing_text_is_refused(tmp_path: Path) -> None:
    path = str(local(tmp_path, [{"text": "one", "coarse": 1}, {"text": None, "coarse": 1}]))
    hub = Hub.from_config(NODE | {"path": path}, ["question"])
    with pytest.raises(UserError, match="/train:1: column 'text' holds None"):
        hub.read("train", "do this")


def test_missing_split_gives_a_one_line_message_with_an_alternative(tmp_path: Path) -> None:
    path = str(local(tmp_path, [{"text": "one", "coarse": 1}]))
    hub = Hub.from_config(NODE | {"path": path}, ["question"])
    with pytest.raises(UserError, match=r"split 'dev', cannot be read .*; or do this") as error:
        hub.read("dev", "do this")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pth": "x"}, r"hub: given 'pth'.* \(did you mean 'path'\?\)"),
        ({"path": None}, r"hub\.path: given None; allowed: a text"),
        ({"revision": 3}, r"hub\.revision: given 3"),
        ({"labels": ["0"]}, r"hub\.labels: given"),
        ({"fields": {"other": "text"}}, r"hub\.fields: given .*allowed: a column for each of qu"),
    ],
)
def test_a_malformed_node_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Hub.from_config(NODE | changed, ["question"])
