from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tasks.joined_rows import TASKS, task_of, write
from tasks.word_tokens import causal_words, masked_words, named, row_of

from lozo_bench.config.build import build
from lozo_bench.errors import UserError
from lozo_bench.tasks.base import Example
from lozo_bench.tasks.fewshot import FewShot
from lozo_bench.tasks.joined import JoinedPrompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CONF = Path(__file__).resolve().parents[2] / "conf" / "task"


def prompt(
    tokenizer: PreTrainedTokenizerFast,
    text: str,
    words: tuple[str, ...] = ("bad", "great"),
    max_length: int = 512,
    masked: bool = True,
) -> JoinedPrompt:
    return JoinedPrompt(tokenizer, text, words, max_length, masked)


def test_every_task_is_in_the_table() -> None:
    assert sorted(TASKS) == sorted(path.stem for path in CONF.glob("*_clora.yaml"))
    assert len(TASKS) == 7


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "causal"])
@pytest.mark.parametrize("name", TASKS)
def test_rows_of_the_tasks_files_give_the_expected_tokens(
    name: str, masked: bool, tmp_path: Path
) -> None:
    task = TASKS[name]
    node = task_of(name, write(tmp_path, task))
    expected, words = (task.masked, task.words[0]) if masked else (task.causal, task.words[1])
    make = masked_words if masked else causal_words
    tokenizer = make([*expected, words])
    text, options = (
        (node["template"], node["label_words"]) if masked else (node["prompt"], node["options"])
    )
    made = JoinedPrompt(tokenizer, text, options, node["max_length"], masked)
    splits = build(node["source"] | {"k": 1}, "task.source").splits()
    assert splits.fitted is not None
    rows = splits.fitted(made.fits).test
    for row, tokens, gold in zip(rows, expected, task.gold, strict=True):
        encoded = made.encode(row)
        assert row_of(tokenizer, encoded) == tokens
        names = tokens.split(" ")
        assert encoded.answer == ((names.index("<mask>") if masked else len(names) - 1,),)
        assert encoded.label == gold
    assert named(tokenizer, made.label_ids) == words
    assert node.get("metric", "accuracy") == task.metric
    assert (node["joined"], node["max_length"], node["source"]["k"]) == (True, 512, 16)


@pytest.mark.parametrize("name", TASKS)
def test_hub_columns_match_the_fields_of_the_task(name: str) -> None:
    source = build(task_of(name, None)["source"], "task.source")
    assert isinstance(source, FewShot)
    assert source.hub is not None
    assert list(source.hub.fields) == list(source.layout.fields)
    assert set(source.hub.labels.values()) in (set(), set(source.layout.labels))


def test_mask_of_the_template_is_scored_even_if_the_text_contains_a_mask() -> None:
    tokenizer = masked_words(["a Ġ. bad great"])
    encoded = prompt(tokenizer, "{s} {mask} .").encode(Example({"s": "a <mask> a"}))
    assert row_of(tokenizer, encoded) == "<s> a <mask> Ġa <mask> Ġ. </s>".replace("Ġa", "<unk>")
    assert encoded.answer == ((4,),)


def test_a_causal_model_continues_the_text_and_not_the_tokenizers_end_token() -> None:
    tokenizer = masked_words(["a Ġfilm bad great"])  # <s> and </s> around a text
    encoded = prompt(tokenizer, "{text} film", masked=False).encode(Example({"text": "a"}))
    assert row_of(tokenizer, encoded) == "<s> a Ġfilm </s>"
    assert encoded.answer == ((2,),)


def test_placeholder_is_the_text_of_fifty_tokens() -> None:
    words = ["".join(letters) for letters in product("bcdfghjklmnp", repeat=3)]
    tokenizer = causal_words([" ".join(f"Ġ{word}" for word in words), "x y"])
    made = prompt(tokenizer, "{placeholder} {s}", ("x", "y"), masked=False)
    (row,) = made.encode(Example({"s": words[0]})).rows
    assert row == (*range(1000, 1050), tokenizer.convert_tokens_to_ids(f"Ġ{words[0]}"))


def test_long_row_is_refused_and_not_cut() -> None:
    tokenizer = masked_words(["a Ġa Ġ. bad great"])
    made = prompt(tokenizer, "{s} {mask}", max_length=4)
    assert made.fits([Example({"s": "a"}), Example({"s": "a a"})]) == [True, False]
    assert len(made.encode(Example({"s": "a"})).rows[0]) == 4
    with pytest.raises(
        UserError, match=r"^train\.tsv:3: the row has 5 tokens, but task\.max_length is 4"
    ):
        made.encode(Example({"s": "a a"}, where="train.tsv:3"))


@pytest.mark.parametrize(
    ("text", "masked", "problem"),
    [
        ("{s}", True, r"with \{mask\} in it exactly once"),
        ("{s} {mask} {mask}", True, r"with \{mask\} in it exactly once"),
        ("{s} {mask}", False, r"with no \{mask\} in it"),
        ("{mask}", True, r"at least one \{field\}"),
        ("{s", True, "balanced braces"),
        ("{s:upper} {mask}", True, "filters strip, .*; 'upper' is not one of them"),
        ("{s!r} {mask}", True, "no conversion"),
        ("{x} {mask}", True, "the fields s, placeholder; 'x' is not one of them"),
    ],
)
def test_malformed_text_is_refused(text: str, masked: bool, problem: str) -> None:
    key = "template" if masked else "prompt"
    tokenizer = masked_words(["a bad great"])
    with pytest.raises(UserError, match=rf"^task\.{key}: given .*{problem}"):
        prompt(tokenizer, text, masked=masked).encode(Example({"s": "a"}))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("Plant", "Plumb"), "that the model's tokenizer knows"),
        (("Plant", "Plant"), "whose first tokens differ; these begin with Pl, Pl"),
        (("bad",), "two or more words"),
        (("bad", " "), "not blank"),
    ],
)
def test_words_that_do_not_distinguish_the_classes_are_refused(
    words: tuple[str, ...], problem: str
) -> None:
    tokenizer = masked_words(["a Pl ant bad great"])
    with pytest.raises(UserError, match=rf"^task\.label_words: given .*{problem}"):
        prompt(tokenizer, "{s} {mask}", words)


def test_missing_mask_unknown_class_and_demonstrations_are_refused() -> None:
    tokenizer = causal_words(["a bad great"])
    with pytest.raises(UserError, match=r"^task\.template: .* no mask token"):
        prompt(tokenizer, "{s} {mask}")
    made = prompt(tokenizer, "{s}", masked=False)
    row = Example({"s": "a"}, 2, where="dev.tsv:9")
    with pytest.raises(
        UserError, match=r"^dev\.tsv:9: there is no word for class 2; the task has 2 words"
    ):
        made.encode(row)
    with pytest.raises(UserError, match=r"^task\.prompt: .* cannot show demonstrations"):
        made.encode(Example({"s": "a"}), [row])
