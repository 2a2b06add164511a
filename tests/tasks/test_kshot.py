from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from omegaconf import OmegaConf

from lozo_bench.config.build import build
from lozo_bench.errors import UserError
from lozo_bench.tasks.kshot import KShot

if TYPE_CHECKING:
    from collections.abc import Callable

    from lozo_bench.tasks.base import Example

CONF = Path(__file__).resolve().parents[2] / "conf" / "task"
FOLDERS = {
    "sst2_kshot": "SST-2",
    "sst5_kshot": "sst-5",
    "snli_kshot": "SNLI",
    "mnli_kshot": "MNLI",
    "rte_kshot": "RTE",
    "trec_kshot": "trec",
}


def source(task: str, seed: int = 13, data_dir: Path | None = None, **changed: Any) -> KShot:
    """Build the source of conf/task/TASK.yaml as a run does."""
    node = OmegaConf.load(CONF / f"{task}.yaml")
    config = OmegaConf.create({"task": node, "seed": {"value": seed}})
    config.task.data_dir = None if data_dir is None else str(data_dir)
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    made = build(plain["task"]["source"] | changed, "task.source")
    assert isinstance(made, KShot)
    return made


def texts(examples: list[Example]) -> list[tuple[str, ...]]:
    return [(*example.fields.values(), str(example.label)) for example in examples]


@pytest.mark.parametrize("split", ["16-13", "16-21", "16-42", "512-42"])
def test_sst2_split_drawn_from_the_full_data_equals_lm_bffs_row_for_row(
    real_data: Callable[[str], Path], split: str
) -> None:
    k, seed = (int(part) for part in split.split("-"))
    full = str(real_data("sst2"))
    drawn = source("sst2_kshot", seed, k=k, full_dir=full).splits()
    ready = source("sst2_kshot", seed, real_data("kshot") / "SST-2" / split, k=k).splits()
    assert texts(drawn.train) == texts(ready.train)
    assert texts(drawn.dev) == texts(ready.dev)
    assert texts(drawn.test) == texts(ready.test)
    assert (len(drawn.train), len(drawn.dev), len(drawn.test)) == (2 * k, 2 * k, 872)


# The number of test rows. SNLI, MNLI and sst-5 are cut to 1,000.
TEST_ROWS = {"SST-2": 872, "sst-5": 1000, "SNLI": 1000, "MNLI": 1000, "RTE": 277, "trec": 500}


@pytest.mark.parametrize("task", FOLDERS)
def test_lm_bff_folder_has_16_rows_per_label(real_data: Callable[[str], Path], task: str) -> None:
    folder = real_data("kshot") / FOLDERS[task] / "16-21"
    made = source(task, data_dir=folder)
    splits = made.splits()
    each = dict.fromkeys(range(len(made.layout.labels)), 16)
    assert Counter(example.label for example in splits.train) == each
    assert Counter(example.label for example in splits.dev) == each
    assert len(splits.test) == TEST_ROWS[FOLDERS[task]]


@pytest.mark.parametrize(
    ("task", "fields", "label"),
    [
        ("sst2_kshot", ("well worth revisiting as many times ",), 1),
        ("sst5_kshot", (None,), 3),
        ("trec_kshot", (None,), 3),
        (
            "rte_kshot",
            (None, "Reagan survived an attempted assassin's bullets."),
            0,
        ),
        (
            "mnli_kshot",
            (
                "Price caps may sound more attractive with every passing rate case.",
                "Rate cases make price caps sound more attractive.",
            ),
            1,
        ),
        ("snli_kshot", (None, "a girl wears black"), 1),
    ],
)
def test_first_row_of_an_lm_bff_folder_has_the_right_texts_and_label(
    real_data: Callable[[str], Path], task: str, fields: tuple[str | None, ...], label: int
) -> None:
    first = source(task, data_dir=real_data("kshot") / FOLDERS[task] / "16-13").splits().train[0]
    assert first.label == label
    for text, expected in zip(first.fields.values(), fields, strict=True):
        assert expected is None or text == expected


def test_ragged_snli_row_has_the_gold_label_and_not_that_of_an_annotator(
    real_data: Callable[[str], Path],
) -> None:
    folder = real_data("kshot") / "SNLI" / "512-42"
    splits = source("snli_kshot", data_dir=folder, k=512).splits()
    # 122 of these rows have more columns than the header.
    assert Counter(example.label for example in splits.train) == {0: 512, 1: 512, 2: 512}


def test_rare_label_of_trec_has_fewer_train_rows_and_no_dev_rows(
    real_data: Callable[[str], Path],
) -> None:
    folder = real_data("kshot") / "trec" / "512-42"
    splits = source("trec_kshot", data_dir=folder, k=512).splits()
    assert Counter(e.label for e in splits.train)[2] == 86
    assert Counter(e.label for e in splits.dev)[2] == 0


def ready(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for split in ("train", "dev", "test"):
        (folder / f"{split}.tsv").write_text("sentence\tlabel\none\t0\ntwo\t1\n")
    return folder


def test_folder_with_a_different_k_is_refused(tmp_path: Path) -> None:
    folder = ready(tmp_path / "16-13")
    with pytest.raises(
        UserError, match=r"k: given 512; allowed: 16, because task\.data_dir=.*16-13 has"
    ):
        source("sst2_kshot", 13, folder, k=512).splits()


def test_folder_with_a_different_seed_gives_a_warning(tmp_path: Path, caplog: Any) -> None:
    source("sst2_kshot", 13, ready(tmp_path / "16-13")).splits()
    source("sst2_kshot", 13, ready(tmp_path / "mine")).splits()
    assert caplog.messages == []
    source("sst2_kshot", 42, tmp_path / "16-13").splits()
    assert "this is the split of seed 13, but the run has seed 42" in caplog.text


def write_full(folder: Path, per_label: int) -> Path:
    rows = [f"text {n}\t{n % 2}" for n in range(2 * per_label)]
    table = "\n".join(["sentence\tlabel", *rows]) + "\n"
    (folder / "train.tsv").write_text(table)
    (folder / "dev.tsv").write_text(table)
    return folder


def test_too_few_rows_of_a_label_are_refused(tmp_path: Path) -> None:
    full = str(write_full(tmp_path, per_label=5))
    assert len(source("sst2_kshot", full_dir=full, k=2).splits().train) == 4
    with pytest.raises(UserError, match=r"task\.source\.k: given 3; label '0' has 5 rows .* 6 are"):
        source("sst2_kshot", full_dir=full, k=3).splits()


def test_too_few_rows_of_a_label_are_accepted_with_allow_short(tmp_path: Path) -> None:
    full = str(write_full(tmp_path, per_label=5))
    splits = source("sst2_kshot", full_dir=full, k=4, allow_short=True).splits()
    assert (len(splits.train), len(splits.dev)) == (8, 2)


def test_full_test_file_is_cut_to_1000_rows(tmp_path: Path) -> None:
    full = str(write_full(tmp_path, per_label=501))
    splits = source("sst2_kshot", full_dir=full, k=2).splits()
    assert len({example.where for example in splits.test}) == 1000


def test_a_label_without_any_row_is_refused(tmp_path: Path) -> None:
    full = str(write_full(tmp_path, per_label=5))
    made = source("sst2_kshot", full_dir=full, k=4, allow_short=True, labels=["0", "1", "2"])
    with pytest.raises(UserError, match="label '2' has 0 rows"):
        made.splits()


def test_unknown_label_is_refused_even_if_its_row_is_not_drawn(tmp_path: Path) -> None:
    write_full(tmp_path, per_label=50)
    with (tmp_path / "train.tsv").open("a") as file:
        file.write("odd one\tmaybe\n")
    with pytest.raises(UserError, match=r"train\.tsv:102: unknown label 'maybe'"):
        source("sst2_kshot", full_dir=str(tmp_path), k=1).splits()


def test_k_shot_folder_without_a_dev_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("sentence\tlabel\nx\t1\n")
    with pytest.raises(UserError, match=r"no file dev\.tsv or .* \(task\.data_dir\)"):
        source("sst2_kshot", data_dir=tmp_path).splits()


def test_k_shot_file_without_labelled_rows_is_refused(tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.tsv").write_text("sentence\tlabel\nx\t-\n")
    with pytest.raises(UserError, match=r"train\.tsv: no row has one of the labels 0, 1"):
        source("sst2_kshot", data_dir=tmp_path, skip_labels=["-"]).splits()


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"k": 0}, "k"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"files": {"train": "train"}}, "files"),
        ({"full_files": {"train": "train"}}, "full_files"),
        ({"data_dir": "a", "full_dir": "b"}, "full_dir"),
        ({"hub": None}, "hub"),
        ({"hub": {"path": "x"}}, "hub.train"),
        ({"labels": ["0"]}, "labels"),
    ],
)
def test_arguments_out_of_range_are_refused_before_any_file_is_read(
    changed: dict[str, Any], key: str
) -> None:
    with pytest.raises(UserError, match=rf"^task\.source\.{key}: given "):
        source("sst2_kshot", **changed)


def folder_of(tmp_path: Path, name: str, **files: str) -> Path:
    folder = tmp_path / "16-13"
    folder.mkdir()
    for split in ("train", "dev", "test"):
        (folder / name.format(split)).write_text(files.get(split, files["other"]))
    return folder


def test_a_glued_row_of_a_published_folder_gives_its_first_sentence_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    glued = "ab1\t0\t*\tFirst one.\nw80\t1\t\tIt rains.ks08\t1\t\tIt snows.\n"
    other = "a\t1\t\tFine.\nb\t0\t*\tNot fine.\n"
    folder = folder_of(tmp_path, "{}.tsv", other=other, test=glued)
    test = source("cola_kshot", data_dir=folder).splits().test
    assert texts(test) == [("First one.", "0"), ("It rains.ks08", "1")]
    (line,) = caplog.messages
    assert line.startswith(f"{folder / 'test.tsv'}:2: the row has more than 4 values; those after")
    short = folder / "dev.tsv"
    short.write_text("a\t1\n")
    with pytest.raises(UserError, match=r"dev\.tsv:1: the row has 2 values for 4 columns"):
        source("cola_kshot", data_dir=folder).splits()


def test_a_blank_text_of_a_published_folder_is_an_empty_sentence_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = folder_of(tmp_path, "{}.csv", other="0,bad\n1,good\n", train="0,bad\n1,\n")
    train = source("mpqa_kshot", data_dir=folder).splits().train
    assert texts(train) == [("bad", "0"), ("", "1")]
    (line,) = caplog.messages
    assert line.startswith(f"{folder / 'train.csv'}:2: a text is blank and is read as an empty")


def test_drawing_cola_says_that_the_rows_are_not_lm_bffs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = "".join(f"s\t{n % 2}\t\tSentence {n}.\n" for n in range(8))
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text(rows)
    source("cola_kshot", full_dir=str(tmp_path), k=2).splits()
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path}: the drawn rows are not LM-BFF's row for row")


def test_a_folder_of_another_k_is_refused_with_the_full_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^task\.source\.k: given 16; allowed: 512, because"):
        source("sst2_kshot", data_dir=tmp_path / "512-21")


def test_labels_may_be_spelled_in_other_ways(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "{}.csv", other="0.0,bad\n1.0,good\n")
    with pytest.raises(UserError, match=r"unknown label '0\.0'.*{0\.0:\"0\",1\.0:\"1\"}"):
        source("cr_kshot", data_dir=folder).splits()
    same = {0.0: "0", 1.0: "1"}  # as Hydra reads it from the command line
    test = source("cr_kshot", data_dir=folder, same_labels=same).splits().test
    assert texts(test) == [("bad", "0"), ("good", "1")]


def test_all_bad_values_of_a_source_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        source("sst2_kshot", data_dir=tmp_path, k=0, seed=-1, files={"train": "train"})
    lines = str(error.value).splitlines()
    keys = ["task.source.k", "task.source.seed", "task.source.files"]
    assert [line.split(":")[0] for line in lines] == keys
