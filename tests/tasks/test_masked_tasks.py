"""Every LM-BFF task, read from files in its own format, gives the expected tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tasks.joined_rows import task_of
from tasks.masked_rows import TASKS
from tasks.word_tokens import masked_words, named, row_of

from lozo_bench.config.build import build
from lozo_bench.errors import UserError
from lozo_bench.tasks.base import Example
from lozo_bench.tasks.kshot import KShot
from lozo_bench.tasks.masked import MaskedPrompt

if TYPE_CHECKING:
    from collections.abc import Callable

CONF = Path(__file__).resolve().parents[2] / "conf" / "task"
# The limits in run_experiment.sh and MeZO's run_fewshot.sh: row, first sentence, other sentences.
LENGTHS = {
    "sst5_kshot": (128, 110, 20),
    "trec_kshot": (128, 110, None),
    "snli_kshot": (256, None, None),
    "mnli_kshot": (256, 240, None),
    "rte_kshot": (256, 240, None),
    "mr_kshot": (128, 110, 50),
    "cr_kshot": (128, 110, 50),
    "mpqa_kshot": (128, 110, None),
    "subj_kshot": (128, 110, 50),
}


def test_every_task_is_in_the_table() -> None:
    assert sorted(TASKS) == sorted(path.stem for path in CONF.glob("*_kshot.yaml"))
    assert len(TASKS) == 14


@pytest.mark.parametrize("name", TASKS)
def test_rows_of_the_tasks_files_give_the_expected_tokens(
    name: str, tmp_path: Path, real_data: Callable[[str], Path]
) -> None:
    task = TASKS[name]
    folder, numbers = task.real
    if folder:
        data_dir = real_data("kshot") / folder / "16-13"
    else:
        data_dir, numbers = tmp_path, tuple(range(len(task.asked)))
        for split in ("train", "dev", "test"):
            (data_dir / f"{split}{task.extension}").write_text(task.file)
    node = task_of(name, data_dir)
    rows = build(node["source"], "task.source").splits().train
    tokenizer = masked_words([*(asked.tokens for asked in task.asked), task.words, "? , . :"])
    prompt = MaskedPrompt(
        tokenizer,
        node["template"],
        node["label_words"],
        node["max_length"],
        node["first_sentence_limit"],
        node["other_sentence_limit"],
    )
    assert len(task.asked) >= 2
    for number, asked in zip(numbers, task.asked, strict=True):
        encoded = prompt.encode(rows[number])
        assert row_of(tokenizer, encoded) == asked.tokens
        assert encoded.answer == ((asked.tokens.split(" ").index("<mask>"),),)
        assert encoded.label == asked.label
    assert named(tokenizer, prompt.label_ids) == task.words
    assert node.get("metric", "accuracy") == task.metric


@pytest.mark.parametrize("name", TASKS)
def test_task_has_its_published_length_limits(name: str) -> None:
    node = task_of(name, None)
    keys = ("max_length", "first_sentence_limit", "other_sentence_limit")
    assert tuple(node[key] for key in keys) == LENGTHS.get(name, (128, None, None))


@pytest.mark.parametrize("name", TASKS)
def test_hub_columns_match_the_fields_of_the_task(name: str) -> None:
    source = build(task_of(name, None)["source"], "task.source")
    assert isinstance(source, KShot)
    assert source.hub is not None
    assert list(source.hub.fields) == list(source.layout.fields)
    assert set(source.hub.labels.values()) in (set(), set(source.layout.labels))


def test_long_sentence_is_cut_to_its_limit_and_keeps_the_mask() -> None:
    node = task_of("mr_kshot", None)
    expected = " ".join(["<s> a", *["Ġa"] * 109, "ĠIt Ġwas <mask> . </s>"])
    tokenizer = masked_words([expected, "Ġterrible Ġgreat"])
    prompt = MaskedPrompt(tokenizer, node["template"], node["label_words"], 128, 110, 50)
    encoded = prompt.encode(Example({"sentence": " ".join(["a"] * 200)}))
    assert row_of(tokenizer, encoded) == expected


def test_demonstrations_are_refused() -> None:
    tokenizer = masked_words(["a <mask> Ġx Ġy"])
    prompt = MaskedPrompt(tokenizer, "*sent_0**mask*", ["x", "y"], 8)
    row = Example({"s": "a"})
    with pytest.raises(UserError, match=r"^task\.template: .* cannot show demonstrations, but 1 "):
        prompt.encode(row, [row])
