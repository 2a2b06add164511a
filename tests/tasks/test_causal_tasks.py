"""Every causal task, read from its files and from the hub, gives the published prompts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from omegaconf import OmegaConf
from tasks.causal_rows import EMPTY, TASKS, Asked
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lozo_bench.config.build import build
from lozo_bench.config.schema import TaskConfig
from lozo_bench.errors import UserError
from lozo_bench.models.tokenizer import load_tokenizer
from lozo_bench.tasks.causal import CausalPrompt
from lozo_bench.tasks.subsample import Subsample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lozo_bench.tasks.base import Encoded, Example

CONF = Path(__file__).resolve().parents[2] / "conf" / "task"
TINY_OPT = Path(__file__).resolve().parents[2] / "lozo_bench/models/embedded/tiny_opt"
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
ROWS = [(name, number) for name, task in TASKS.items() for number in range(len(task.asked))]


@pytest.fixture(scope="module")
def opt() -> PreTrainedTokenizerFast:
    """A byte-level BPE with a BOS token that, like OPT's, has each answer word as one token."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["Yes\nNo\nMaybe\nIt was terrible\nIt was great"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def task_config(name: str, **source: Any) -> dict[str, Any]:
    node = OmegaConf.merge(OmegaConf.structured(TaskConfig), OmegaConf.load(CONF / f"{name}.yaml"))
    root = OmegaConf.create({"task": node, "seed": {"value": 0}})
    OmegaConf.update(root, "task.source", source)
    plain = OmegaConf.to_container(root, resolve=True, enum_to_str=True)
    assert isinstance(plain, dict)
    found: dict[str, Any] = plain["task"]
    return found


def source(name: str, **changed: Any) -> Subsample:
    made = build(task_config(name, **changed)["source"], "task.source")
    assert isinstance(made, Subsample)
    return made


def written(name: str, folder: Path) -> Path:
    """Write the rows of the task as files of its own format, the same for train and test."""
    rows, files = TASKS[name].rows, task_config(name)["source"]["files"]
    for stem in files.values():
        if isinstance(rows, dict):
            (folder / f"{stem}.json").write_text(json.dumps(rows))
        else:
            (folder / f"{stem}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def from_files(name: str, folder: Path) -> list[Example]:
    made = source(name, data_dir=str(written(name, folder)), **one_dev_row(name))
    return sorted(made.splits().test, key=lambda example: example.where)


def one_dev_row(name: str) -> dict[str, Any]:
    return {"num_dev": {"sane": 1}} if name == "wsc" else {"num_dev": 1}


def prompt(tokenizer: PreTrainedTokenizerFast, name: str, **changed: Any) -> CausalPrompt:
    keys = ("prompt", "options", "answer", "calibration", "max_length", "max_new_tokens")
    return CausalPrompt(tokenizer, **{key: task_config(name)[key] for key in keys} | changed)


def text(tokenizer: PreTrainedTokenizerFast, ids: tuple[int, ...]) -> str:
    return str(tokenizer.decode(list(ids)))


def check(tokenizer: PreTrainedTokenizerFast, encoded: Encoded, asked: Asked, start: str) -> None:
    """Check that each row is ``start`` plus an option, and that the option's tokens are scored."""
    spans = zip(encoded.rows, encoded.answer, strict=True)
    for (row, answer), option in zip(spans, asked.options, strict=True):
        # Spaces are stripped around the whole text, even if the text is only an option.
        whole = start + option if start else option.strip(" ")
        assert text(tokenizer, row) == "<s>" + whole
        assert answer == tuple(range(answer[0], len(row)))
        assert text(tokenizer, row[answer[0] :]) == (option if start else whole)
    assert (encoded.label, encoded.golds) == (asked.label, asked.golds)


@pytest.mark.parametrize(("name", "number"), ROWS)
def test_prompt_of_a_row_is_as_published(
    opt: PreTrainedTokenizerFast, tmp_path: Path, name: str, number: int
) -> None:
    asked, example = TASKS[name].asked[number], from_files(name, tmp_path)[number]
    encoded = prompt(opt, name).encode(example)
    check(opt, encoded, asked, asked.prompt)
    assert encoded.answers == asked.answers
    assert text(opt, encoded.prompt) == ("<s>" + asked.prompt if asked.answers else "")


@pytest.mark.parametrize(("name", "number"), ROWS)
def test_calibration_has_the_same_options_without_the_row(
    opt: PreTrainedTokenizerFast, tmp_path: Path, name: str, number: int
) -> None:
    asked, example = TASKS[name].asked[number], from_files(name, tmp_path)[number]
    if asked.calibration is None:
        with pytest.raises(UserError, match=r"^task\.calibration: given None"):
            prompt(opt, name).encode_calibration(example)
        return
    check(opt, prompt(opt, name).encode_calibration(example), asked, asked.calibration)


@pytest.mark.parametrize("name", TASKS)
def test_an_empty_prompt_is_the_texts_of_the_row_before_the_same_options(
    opt: PreTrainedTokenizerFast, tmp_path: Path, name: str
) -> None:
    asked, example = TASKS[name].asked[1], from_files(name, tmp_path)[1]
    empty = prompt(opt, name, prompt=task_config(name)["empty_prompt"], calibration="")
    encoded, blank = empty.encode(example), empty.encode_calibration(example)
    options = [option.lstrip() if name == "record" else option for option in asked.options]
    wanted = replace(asked, options=options)
    check(opt, encoded, wanted, EMPTY[name])
    assert encoded.answers == asked.answers
    if not asked.answers:
        check(opt, blank, wanted, "")


@pytest.mark.parametrize("name", TASKS)
def test_task_has_its_published_objective_and_metric(name: str) -> None:
    config = task_config(name)
    assert config["train_as"] == TASKS[name].train_as
    assert config["metric"] == TASKS[name].metric
    assert (config["select"], config["max_length"]) == ("dev_loss", 2048)


PROTOCOL = {"cb": (1000, 100), "copa": (1000, 100), "winogrande": (1000, 100), "wsc": (1000, 100)}


@pytest.mark.parametrize("name", TASKS)
def test_sizes_and_seed_are_those_of_the_protocol(name: str) -> None:
    made = source(name)
    assert (made.num_train, made.num_dev) == PROTOCOL.get(name, (1000, 500))
    assert (made.num_test, made.seed) == (1000, 0)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Example]]:
    """Return a reader of tasks from a fake hub, which has the rows of the task in every split."""
    from datasets import ClassLabel, Dataset

    def read(name: str) -> list[Example]:
        data = Dataset.from_list(TASKS[name].hub)
        if TASKS[name].names:
            data = data.cast_column("label", ClassLabel(names=TASKS[name].names))
        monkeypatch.setattr("lozo_bench.tasks.hub.Hub._load", lambda self, split, alternative: data)
        made = source(name, data_dir=None, **one_dev_row(name))
        return sorted(made.splits().test, key=lambda example: example.where)

    return read


@pytest.mark.parametrize("name", TASKS)
def test_the_hub_gives_the_same_rows_as_files(
    name: str, hub: Callable[[str], list[Example]], tmp_path: Path
) -> None:
    keys = ("fields", "label", "options", "golds", "answers")
    ours = [[getattr(e, key) for key in keys] for e in from_files(name, tmp_path)]
    assert [[getattr(e, key) for key in keys] for e in hub(name)] == ours


@pytest.mark.parametrize("name", ["rte", "cb", "boolq", "wsc", "wic", "multirc"])
def test_yes_no_and_maybe_are_one_token_each(
    opt: PreTrainedTokenizerFast, tmp_path: Path, name: str
) -> None:
    # A newline lost from the end of the prompt would turn them into other tokens.
    for example in from_files(name, tmp_path):
        encoded = prompt(opt, name).encode(example)
        assert {len(answer) for answer in encoded.answer} == {1}
        words = [opt.convert_ids_to_tokens(row[-1]) for row in encoded.rows]
        assert set(words) <= {"Yes", "No", "Maybe"}


def test_terrible_and_great_are_one_token_each(
    opt: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    for example in from_files("sst2", tmp_path):
        encoded = prompt(opt, "sst2").encode(example)
        assert [opt.convert_ids_to_tokens(row[-1]) for row in encoded.rows] == [
            "Ġterrible",
            "Ġgreat",
        ]
        assert [len(answer) for answer in encoded.answer] == [1, 1]


@pytest.mark.parametrize(("bos", "first"), [("<s>", 0), ("</s>", 2)])
def test_row_begins_with_the_bos_token_of_the_model(tmp_path: Path, bos: str, first: int) -> None:
    # MeZO sets the BOS token to <s> (id 0); OPT's own is </s> (id 2). See model.bos_token.
    tokenizer = load_tokenizer(str(TINY_OPT), bos)
    for name in TASKS:
        (tmp_path / name).mkdir()
        example = from_files(name, tmp_path / name)[0]
        for row in prompt(tokenizer, name).encode(example).rows:
            assert row[0] == first
            assert first not in row[1:]


def official(folder: Path, stem: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each row of a SuperGLUE file with its position; MultiRC has one per answer."""
    lines = (folder / f"{stem}.jsonl").read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(filter(None, lines), start=1):
        row, where = json.loads(line), f"{folder / stem}.jsonl:{number}"
        if "passage" in row and isinstance(row["passage"], dict):
            for q, question in enumerate(row["passage"]["questions"]):
                for a, answer in enumerate(question["answers"]):
                    place = f"{where}:passage.questions[{q}].answers[{a}]"
                    yield place, {"p": row["passage"]["text"], "q": question["question"], **answer}
        else:
            yield where, row


def _boolq(row: dict[str, Any]) -> str:
    question = row["question"] if row["question"][-1] == "?" else row["question"] + "?"
    return f"{row['passage']} {question[0].upper()}{question[1:]}\n"


REAL: dict[str, tuple[str, Callable[[dict[str, Any]], str], dict[Any, int]]] = {
    "rte": (
        "RTE",
        lambda r: f'{r["premise"]}\nDoes this mean that "{r["hypothesis"]}" is true? Yes or No?\n',
        {"entailment": 0, "not_entailment": 1},
    ),
    "cb": (
        "CB",
        lambda r: (
            f'Suppose {r["premise"]} Can we infer that "{r["hypothesis"]}"? Yes, No, or Maybe?\n'
        ),
        {"entailment": 0, "contradiction": 1, "neutral": 2},
    ),
    "boolq": ("BoolQ", _boolq, {True: 0, False: 1}),
    "wic": (
        "WiC",
        lambda r: (
            f'Does the word "{r["word"]}" have the same meaning in these two sentences? Yes, No?\n'
            f"{r['sentence1']}\n{r['sentence2']}\n"
        ),
        {False: 0, True: 1},
    ),
    "multirc": (
        "MultiRC",
        lambda r: (
            f'{r["p"]}\nQuestion: {r["q"]}\nI found this answer "{r["text"]}". Is that correct? '
            "Yes or No?\n"
        ),
        {0: 0, 1: 1},
    ),
    "copa": (
        "COPA",
        lambda r: (
            r["premise"].rstrip()[: -1 if r["premise"].rstrip()[-1] == "." else None]
            + {"effect": " so", "cause": " because"}[r["question"]]
        ),
        {0: 0, 1: 1},
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_prompts_of_the_official_rows_are_as_published(
    opt: PreTrainedTokenizerFast, real_data: Callable[[str], Path], name: str
) -> None:
    title, asked, labels = REAL[name]
    folder = real_data("superglue") / title
    made = source(name, data_dir=str(folder), num_dev=2, num_test=10**6)
    examples = {example.where: example for example in made.splits().test}
    ask = prompt(opt, name, max_length=100_000)
    rows = list(official(folder, "val"))
    assert len(rows) == len(examples)
    for where, row in rows[:60]:
        encoded = ask.encode(examples[where])
        assert encoded.label == labels[row["label"]]
        ids, answer = encoded.rows[encoded.label], encoded.answer[encoded.label]
        # Leading white space of the whole text is stripped, so a passage may lose some.
        assert text(opt, ids[: answer[0]]) == "<s>" + asked(row).lstrip()


def test_wsc_nouns_and_pronouns_are_spelled_as_in_the_text(
    real_data: Callable[[str], Path],
) -> None:
    folder = real_data("superglue") / "WSC"
    examples = source("wsc", data_dir=str(folder), num_dev={"sane": 2}).splits().test
    assert len(examples) == 104
    for example in examples:
        assert example.fields["noun"] in example.fields["text"]
        assert example.fields["pronoun"] in example.fields["text"]


def many(folder: Path, name: str, rows: int, stem: str) -> None:
    first = TASKS[name].rows[0]  # type: ignore[index]
    (folder / f"{stem}.jsonl").write_text("\n".join([json.dumps(first)] * rows))


@pytest.mark.parametrize(
    ("split", "sizes"), [("published", (54, 500, 104)), ("sane", (454, 100, 104))]
)
def test_wsc_has_a_published_and_a_sane_split(
    tmp_path: Path, split: str, sizes: tuple[int, int, int]
) -> None:
    # SuperGLUE's WSC has 554 train rows and 104 validation rows
    many(tmp_path, "wsc", 554, "train")
    many(tmp_path, "wsc", 104, "val")
    splits = source("wsc", data_dir=str(tmp_path), split=split).splits()
    assert (len(splits.train), len(splits.dev), len(splits.test)) == sizes
    assert splits.pool is not None
    assert len(splits.pool()) == 554


@pytest.mark.parametrize(("name", "rows", "left"), [("cb", 250, 150), ("copa", 400, 300)])
def test_small_tasks_keep_100_rows_for_dev(tmp_path: Path, name: str, rows: int, left: int) -> None:
    many(tmp_path, name, rows, "train")
    many(tmp_path, name, 5, "val")
    splits = source(name, data_dir=str(tmp_path)).splits()
    assert (len(splits.train), len(splits.dev)) == (left, 100)


def test_rows_are_drawn_in_the_order_of_the_permutation(tmp_path: Path) -> None:
    many(tmp_path, "rte", 10, "train")
    many(tmp_path, "rte", 10, "val")
    made = source("rte", data_dir=str(tmp_path), num_train=3, num_dev=2, num_test=4).splits()
    lines = {key: [int(e.where.rpartition(":")[2]) - 1 for e in getattr(made, key)]
             for key in ("train", "dev", "test")}  # fmt: skip
    # numpy's legacy permutation of 10 under seed 0 is 2 8 4 9 1 6 7 3 0 5
    assert lines == {"train": [2, 8, 4], "dev": [9, 1], "test": [2, 8, 4, 9]}


def test_join_spans_makes_one_answer_of_the_spans_of_an_annotation(tmp_path: Path) -> None:
    made = source(
        "drop",
        data_dir=str(written("drop", tmp_path)),
        num_dev=1,
        join_spans=True,
        test_answers=["*.qa_pairs.answer", "*.qa_pairs.validated_answers"],
    )
    answers = sorted(example.answers for example in made.splits().test)
    assert answers == [("5", "five yards; 5"), ("9 May",)]
