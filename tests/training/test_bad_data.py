"""Malformed data, through the command: one line naming file and line, exit code 2, no traceback."""

from __future__ import annotations

import pytest

GOOD = b"sentence\tlabel\nfine film\t1\ndull film\t0\n"

# name: (task.data_dir's dev.tsv, or None for no such file; what is said, after the path)
BAD_FILES = {
    "missing file": (None, ": "),
    "empty file": (b"", "dev.tsv"),
    "header only": (b"sentence\tlabel\n", "dev.tsv"),
    "missing text column": (b"text\tlabel\nfine film\t1\n", "dev.tsv:1: no column 'sentence'"),
    "missing label column": (b"sentence\tgold\nfine film\t1\n", "dev.tsv:1: no column 'label'"),
    "unknown label": (GOOD + b"odd film\t2\n", "dev.tsv:4: unknown label '2'"),
    "blank label": (GOOD + b"odd film\t\n", "dev.tsv:4: blank label"),
    "too few fields": (GOOD + b"odd film\n", "dev.tsv:4: "),
    "not UTF-8": (GOOD + b"caf\xe9\t1\n", "dev.tsv:4: "),
}

# A published k-shot folder may have such rows (see tests/tasks/test_kshot.py); other files may not.
BAD_ROWS = {
    "blank text": (b" \t1\n", "test.tsv:4: the text in column 'sentence' is blank"),
    "too many fields": (b"odd\tfilm\t1\n", "test.tsv:4: "),
}
OWN_TASK = """
name: own
data_dir: ???
source:
  _target_: lozo_bench.tasks.subsample.Subsample
  data_dir: ${..data_dir}
  hub: null
  files: {train: train, test: test}
  num_dev: 1
  fields: {sentence: sentence}
  label: label
  labels: ["0", "1"]
template: "{sentence} It was {mask} ."
label_words: [terrible, great]
"""


@pytest.fixture
def folder(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("train", "dev", "test"):
        (data / f"{name}.tsv").write_bytes(GOOD)
    return data


def refused(command, folder, *arguments):
    code, out, err = command(
        *arguments, "model=tiny_roberta", f"task.data_dir={folder}", "tracking=files",
        *([] if "task=own" in arguments else ["task=sst2_kshot"]),
    )  # fmt: skip
    assert code == 2, err
    assert out == ""
    assert len(err.splitlines()) == 1, err
    return err


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_a_one_line_error_with_exit_code_2(command, folder, name):
    content, said = BAD_FILES[name]
    (folder / "dev.tsv").unlink()
    if content is not None:
        (folder / "dev.tsv").write_bytes(content)
    err = refused(command, folder)
    assert str(folder) in err
    assert said in err


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_of_the_users_own_files_is_a_one_line_error(command, folder, tmp_path, name):
    row, said = BAD_ROWS[name]
    (folder / "test.tsv").write_bytes(GOOD + row)
    (tmp_path / "conf" / "task").mkdir(parents=True)
    (tmp_path / "conf" / "task" / "own.yaml").write_text(OWN_TASK)
    err = refused(command, folder, "--config-dir", str(tmp_path / "conf"), "task=own")
    assert str(folder) in err
    assert said in err


def test_the_error_for_bad_json_names_its_line(command, folder):
    for name in ("train", "dev", "test"):
        (folder / f"{name}.tsv").unlink()
        (folder / f"{name}.jsonl").write_text('{"sentence": "fine", "label": "1"}\n{"sentence": \n')
    assert "train.jsonl:2: " in refused(command, folder)


def test_the_error_for_a_label_word_of_several_tokens_names_the_tokens(command, folder):
    err = refused(command, folder, "task.label_words=[terrible,extraordinary]")
    assert "task.label_words: given 'extraordinary'" in err
    assert "tokens" in err or "one token" in err


def test_the_error_for_a_row_that_is_too_long_names_its_line(command, folder):
    (folder / "test.tsv").write_bytes(GOOD + b"long " * 300 + b"\t1\n")
    assert "test.tsv:4: the mask would be token" in refused(command, folder)


def test_good_files_pass(command, folder):
    code, out, err = command(
        "model=tiny_roberta", "task=sst2_kshot", f"task.data_dir={folder}", "tracking=files",
        "steps=1",
    )  # fmt: skip
    assert code == 0, err
    assert "zero-shot" in out
