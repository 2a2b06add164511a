"""Words that YAML and Hydra do not read as text are refused where a text is expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from lozo_bench.config.build import build
from lozo_bench.config.digest import digest
from lozo_bench.config.words import check_arguments, check_file
from lozo_bench.errors import UserError

CONF = Path(__file__).resolve().parents[2] / "conf"
SOURCE = """source:
  _target_: lozo_bench.tasks.subsample.Subsample
  num_dev: {few: 3}
"""
# The package, the file, and what the message says after the file's name.
FILES = [
    ("task", "options: [Nein, No]", "1: task.options: YAML reads No as false, not as text"),
    ("task", "label_words:\n- good\n- off\n", "3: task.label_words: YAML reads off as false"),
    ("task", "prompt: 1e1", "1: task.prompt: YAML reads 1e1 as the number 10.0"),
    ("task", "options: ['no', null]", "1: task.options: YAML reads null as null"),
    ("task", "options: [010, 7]", "1: task.options: YAML reads 010 as the number 8, not"),
    ("task", "options: [1:30, 0.5]", "1: task.options: YAML reads 1:30 as the number 90, 0.5 as"),
    ("", "task:\n  name: rte\n  answer: yes\n", "3: task.answer: YAML reads yes as true"),
    (
        "",
        "hydra: {sweeper: {params: {seed: 's1,s2', task.prompt: 'true,x'}}}",
        " hydra.sweeper.params: task.prompt=true,x: a bare word in it is read as",
    ),
    ("model", "path: 0x1F", "1: model.path: YAML reads 0x1F as the number 31"),
    ("task", SOURCE + "  labels: [True, 0]", "4: task.source.labels: YAML reads True as true"),
    ("task", SOURCE + "  fields: {on: a}", "4: task.source.fields: YAML reads on as true"),
    ("task", SOURCE + "  values: {a: {b: no}}", "4: task.source.values.a.b: YAML reads no as"),
    ("task", SOURCE + "  hub: {labels: {a: 1.}}", "4: task.source.hub.labels.a: YAML reads 1. as"),
]


@pytest.mark.parametrize(("package", "text", "message"), FILES)
def test_a_word_in_a_file_that_is_not_read_as_text_is_refused(package, text, message):
    with pytest.raises(UserError) as error:
        check_file("mine.yaml", text, package)
    assert str(error.value).startswith(f"mine.yaml:{message}")
    assert "; what to do: quote " in str(error.value)


def test_all_words_of_a_file_are_reported_at_once_and_how_to_quote_them():
    with pytest.raises(UserError) as error:
        check_file("a.yaml", "prompt: on\noptions: [No, Yes]", "task")
    first, second = str(error.value).splitlines()
    assert (
        first
        == "a.yaml:1: task.prompt: YAML reads on as true, not as text; what to do: quote it: 'on'"
    )
    assert second.endswith("what to do: quote them: 'No', 'Yes'")


@pytest.mark.parametrize(
    "text",
    ["options: ['No', \"1e1\", no way, 2020-01-01, 0, 42]", "prompt: null", "max_length: 1_0",
     "prompt: |\n  No\n", "joined: yes", "source: {anything: No}"],
)  # fmt: skip
def test_quoted_words_whole_numbers_and_values_of_other_types_are_allowed(text):
    check_file("mine.yaml", text, "task")


@pytest.mark.parametrize("path", sorted(CONF.glob("task/*.yaml")), ids=lambda path: path.stem)
def test_no_task_file_of_the_project_has_such_a_word(path):
    check_file(str(path), path.read_text(encoding="utf-8"), "task")


@pytest.mark.parametrize(
    ("argument", "instead"),
    [
        ("task.options=[true,False]", "\"task.options=['true','False']\""),
        ("+task.label_words=[good, 1e1]", "\"+task.label_words=[good,'1e1']\""),
        ("task.options=[1_000,null]", "\"task.options=['1_000','null']\""),
        ("task.options=[a,b],[a,nan]", "\"task.options=[a,b],[a,'nan']\""),
        ("task.prompt=false", "\"task.prompt='false'\""),
        ("sweep=1e1", "\"sweep='1e1'\""),
    ],
)
def test_a_word_on_the_command_line_that_is_not_read_as_text_is_refused(argument, instead):
    with pytest.raises(UserError) as error:
        check_arguments(["steps=3", argument])
    assert str(error.value).startswith(f"{argument}: ")
    assert str(error.value).endswith(f"what to do: quote it: {instead}")


@pytest.mark.parametrize("options", ["[ bad, good]", "[' bad', good]", "[bad],[ good,x]"])
def test_a_blank_that_hydra_would_drop_from_an_option_is_refused(options):
    with pytest.raises(UserError, match=r"Hydra drops the blank.*task.options=\[' terrible'"):
        check_arguments([f"task.options={options}"])


def test_words_that_hydra_reads_as_text_and_other_arguments_are_allowed():
    check_arguments(
        ["-m", "--config-dir=on", "task.options=[No,Yes]", "task.options=['true',0,1]", "sweep=1.5",
         "task.options=[' bad', ' good']",
         "task.prompt=null", "optimizer.lr=1e-3", "task.options=[unclosed", "tracking.project="]
    )  # fmt: skip


def test_a_file_in_a_folder_of_the_users_own_is_checked_when_it_is_read(command, tmp_path):
    (tmp_path / "mine" / "task").mkdir(parents=True)
    (tmp_path / "mine" / "task" / "own.yaml").write_text("defaults: [reviews]\noptions: [No, Yes]")
    code, _, err = command("--config-dir", "mine", "task=own")
    assert code == 2
    assert err.startswith(str(tmp_path / "mine" / "task" / "own.yaml") + ":2: task.options: YAML")
    assert not (tmp_path / "outputs").exists()


def test_whole_numbers_in_a_source_are_texts_and_other_words_are_refused_together():
    node = {
        "_target_": "lozo_bench.tasks.whole.Whole", "data_dir": ".", "hub": None, "label": 3,
        "files": {"train": 1, "test": 2}, "fields": {"text": 0}, "labels": [0, 1],
    }  # fmt: skip
    whole = build(node, "task.source")
    assert (whole.layout.label, whole.layout.labels) == ("3", ["0", "1"])
    assert (whole.files, whole.layout.fields) == ({"train": "1", "test": "2"}, {"text": "0"})
    with pytest.raises(UserError) as error:
        build(node | {"labels": [False, True], "label": 1.5, "files": {True: "x"}}, "task.source")
    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "task.source.label", "task.source.files", "task.source.labels",
    ]  # fmt: skip
    assert all("what to do: quote a word" in line for line in lines)


def test_the_digest_of_a_config_may_have_numbers_as_keys():
    assert digest({"task": {"source": {1.0: "a"}}}) == digest({"task": {"source": {"1.0": "a"}}})
