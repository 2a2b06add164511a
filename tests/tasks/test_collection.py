"""A task of a MetaICL collection, read from the files that MetaICL's code writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from omegaconf import OmegaConf

from lozo_bench.config.build import build
from lozo_bench.config.paths import CONF
from lozo_bench.errors import UserError
from lozo_bench.tasks.causal import CausalPrompt
from lozo_bench.tasks.collection import Collection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NAME = "tiny-mood"


def row(text: str, output: str, *options: str, task: str = NAME) -> dict[str, Any]:
    return {"task": task, "input": text, "output": output, "options": [*options]}


MOODS = [row("a", "good", "bad", "good"), row("b", "bad", "bad", "good")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A task with four train rows of K = 2, dev rows, and two test rows."""
    made = tmp_path / NAME
    made.mkdir()
    write(made, "2_13_train", [row(f"t{n}", "good", "bad", "good") for n in range(4)])
    write(made, "2_13_dev", [row("d", "bad", "bad", "good")])
    write(made, "2_100_test", MOODS)
    return made


def write(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / f"{NAME}_{kind}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def source(folder: Path | None, name: str = "metaicl", **changed: Any) -> Collection:
    config = OmegaConf.create({"task": OmegaConf.load(CONF / "task" / f"{name}.yaml")})
    node = OmegaConf.to_container(config, resolve=True)["task"]["source"]  # type: ignore[index, call-overload]
    given = {"data_dir": folder and str(folder), "k": 2, "seed": 13, "test_k": 2}
    made = build({**node, **given, **changed}, "task.source")
    assert isinstance(made, Collection)
    return made


def inputs(examples: list[Any]) -> list[str]:
    return [example.fields["input"] for example in examples]


def test_rows_are_read_from_the_files_of_their_k_and_seed(folder: Path) -> None:
    splits = source(folder).splits()
    assert inputs(splits.train) == ["t0", "t1", "t2", "t3"]
    assert (inputs(splits.dev), inputs(splits.test)) == (["d"], ["a", "b"])
    assert [(e.label, e.options) for e in splits.test] == [
        (1, ("\nbad", "\ngood")), (0, ("\nbad", "\ngood")),
    ]  # fmt: skip


def test_the_text_is_the_input_a_new_line_and_the_option_which_is_scored_with_it(
    folder: Path, opt_like: PreTrainedTokenizerFast
) -> None:
    prompt = CausalPrompt(opt_like, "{input}", max_length=256)
    encoded = prompt.encode(source(folder).test()[0])
    assert [opt_like.decode(list(ids)) for ids in encoded.rows] == ["<s>a\nbad", "<s>a\ngood"]
    scored = [opt_like.decode([ids[n] for n in at])
              for ids, at in zip(encoded.rows, encoded.answer, strict=True)]  # fmt: skip
    assert scored == ["\nbad", "\ngood"]


def test_held_out_train_rows_are_dev_rows_instead_of_the_file_of_dev_rows(folder: Path) -> None:
    (folder / f"{NAME}_2_13_dev.jsonl").unlink()
    splits = source(folder, held_out=1, num_train=2).splits()
    assert (len(splits.train), len(splits.dev)) == (2, 1)
    assert len({*inputs(splits.train), *inputs(splits.dev)}) == 3
    assert len(source(folder, held_out=1).splits().train) == 3
    assert len(source(folder, num_test=1).test()) == 1


def test_the_test_rows_are_read_without_the_files_of_the_others(folder: Path) -> None:
    for split in ("train", "dev"):
        (folder / f"{NAME}_2_13_{split}.jsonl").write_text("not JSON")
    assert inputs(source(folder).test()) == ["a", "b"]


def test_shared_options_are_classes_in_one_order(folder: Path) -> None:
    write(folder, "2_100_test", [MOODS[0], row("b", "bad", "good", "bad")])
    found = source(folder, same_options=True).test()
    assert [e.label for e in found] == [1, 0]
    assert {e.options for e in found} == {("\nbad", "\ngood")}


def test_outputs_without_options_are_answers_that_are_written(folder: Path) -> None:
    for kind in ("2_13_train", "2_13_dev", "2_100_test"):
        write(folder, kind, [row("When?", "in May")])
    splits = source(folder, "metaicl_text", options=None).splits()
    assert [(e.options, e.answers) for e in splits.train] == [((), ("in May",))]


BAD = [
    (row("a", "x"), {}, "column 'options' is an empty list.*task.answer"),
    (row("a", "x", "x"), {}, "only one text in 'options'.*task=metaicl_text"),
    (row("a", "x", "bad", "good"), {}, "the output 'x' is not one of the options 'bad', 'good'"),
    (row("a", " ", "bad", "good"), {}, "there is no text in 'output'"),
    (row("a", "x", "x", "y", task="other"), {}, "of task 'other', in the folder of another task"),
    (row("a", "x", "x", "y"), {"same_options": True}, "same_options=false task.metric=accuracy"),
]


@pytest.mark.parametrize(("bad", "changed", "problem"), BAD)
def test_a_row_that_does_not_fit_is_refused_with_its_line(
    folder: Path, bad: dict[str, Any], changed: dict[str, Any], problem: str
) -> None:
    path = write(folder, "2_100_test", [*MOODS, bad])
    with pytest.raises(UserError, match=f"^{path}:3: .*{problem}"):
        source(folder, **changed).splits()


def test_a_file_that_is_missing_is_refused_with_those_that_are_there(folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"no file tiny-mood_2_100_train\.jsonl.*_2_13_train.*source\.k"
    ):
        source(folder, seed=100).splits()
    with pytest.raises(UserError, match=r"_16_100_test\.jsonl.*_2_100_test.*source\.test_k"):
        source(folder, test_k=16).splits()
    (folder / f"{NAME}_2_13_dev.jsonl").unlink()
    with pytest.raises(UserError, match=r"no file of dev rows.*task\.source\.held_out=N"):
        source(folder).splits()
    with pytest.raises(UserError, match=r"no such directory; task\.data_dir"):
        source(folder / "none").splits()


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"k": 0}, "k"),
        ({"seed": -1}, "seed"),
        ({"held_out": -1}, "held_out"),
        ({"num_train": 0}, "num_train"),
        ({"options": None, "same_options": True}, "same_options"),
    ],
)
def test_arguments_that_are_not_allowed_are_refused(changed: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=rf"^task\.source\.{key}: given "):
        source(Path(), **changed)


def test_a_task_without_a_folder_is_refused_when_its_rows_are_read() -> None:
    with pytest.raises(
        UserError, match=r"^task\.data_dir: given None; allowed: the folder of a task"
    ):
        source(None).splits()


def test_more_held_out_rows_than_there_are_train_rows_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"^task\.source\.held_out: given 4; .*4 train rows"):
        source(folder, held_out=4).splits()
