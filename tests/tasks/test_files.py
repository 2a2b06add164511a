from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from lozo_bench.errors import UserError
from lozo_bench.tasks.files import find_file, read_rows
from lozo_bench.tasks.layout import Layout
from lozo_bench.tasks.rows import Row, labelled, to_examples

REVIEWS = Layout({"sentence": "sentence"}, "label", ["0", "1"])
PLAIN_CSV = Layout({"text": "text"}, "label", ["0", "1"], columns=["label", "text"])
SNLI = Layout({"a": "s1", "b": "s2"}, "gold", ["yes", "no"], ragged=True)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def values(rows: list[Row]) -> list[list[str]]:
    return [list(row.values.values()) for row in rows]


def test_tsv_is_split_only_at_newlines_and_tabs(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", 'sentence\tlabel\nhe said " no\u2028\u0085x \t1\r\nb , c\t0')
    rows = read_rows(path, REVIEWS)
    assert values(rows) == [['he said " no\u2028\u0085x ', "1"], ["b , c", "0"]]
    assert [row.where for row in rows] == [f"{path}:2", f"{path}:3"]


def test_only_the_needed_columns_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", "index\tlabel\tsentence\n7\t1\tfine\n\n")
    assert read_rows(path, REVIEWS) == [Row(f"{path}:2", {"sentence": "fine", "label": "1"})]


def test_csv_without_a_header_may_have_quotes_and_newlines_in_quotes(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", '1,"well , ""good""\nreally"\n0,bad\n')
    rows = read_rows(path, PLAIN_CSV)
    assert values(rows) == [['well , "good"\nreally', "1"], ["bad", "0"]]
    assert rows[1].where == f"{path}:3"


def test_csv_with_a_header_is_read_by_column_name(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "\ufefflabel,sentence\n1,fine\n")
    assert values(read_rows(path, REVIEWS)) == [["fine", "1"]]


def test_jsonl_reads_texts_integers_and_booleans(tmp_path: Path) -> None:
    path = write(
        tmp_path, "a.jsonl", '{"sentence": "x", "label": 1}\n{"label": true, "sentence": 5}'
    )
    assert values(read_rows(path, REVIEWS)) == [["x", "1"], ["5", "true"]]


@pytest.mark.parametrize("text", ["[%s,\n%s]", "%s\n%s\n"])
def test_json_may_hold_a_list_or_one_object_per_line(tmp_path: Path, text: str) -> None:
    objects = ('{"sentence": "x", "label": 1}', '{"label": 0, "sentence": "y"}')
    path = write(tmp_path, "a.json", text % objects)
    rows = read_rows(path, REVIEWS)
    assert values(rows) == [["x", "1"], ["y", "0"]]
    assert rows[1].where == f"{path}:{'[1]' if text[0] == '[' else 2}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"info": 3, "data": [{"sentence": "x"}]}', "the rows are in the list 'data'; what to do"),
        ('[{"sentence": "x", "label": 1}, 5]', r"a\.json:\[1\]: the item is not a JSON object"),
        ("[" * 5000, "too many brackets"),
        ('{"sentence": %s}' % ("9" * 4500), "more than 4,300 digits"),
    ],
)
def test_json_of_another_kind_is_refused_with_a_remedy(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read_rows(write(tmp_path, "a.json", text), REVIEWS)


def test_a_csv_field_may_be_long_and_the_limit_of_the_csv_module_is_put_back(
    tmp_path: Path,
) -> None:
    before = csv.field_size_limit()
    long = "good " * 60_000
    assert values(read_rows(write(tmp_path, "a.csv", f"1,{long}\n"), PLAIN_CSV)) == [[long, "1"]]
    assert csv.field_size_limit() == before


def test_last_value_of_a_ragged_row_is_its_label(tmp_path: Path) -> None:
    path = write(
        tmp_path, "a.tsv", "s1\ts2\tl1\tgold\na\tb\tno\tyes\nc\td\tno\tno\tno\tyes\ne\tf\tno\n"
    )
    assert values(read_rows(path, SNLI)) == [["a", "b", "yes"], ["c", "d", "yes"], ["e", "f", "no"]]


def test_labels_become_class_ids_and_rows_with_skipped_labels_are_dropped(tmp_path: Path) -> None:
    layout = Layout({"text": "s"}, "y", ["no", "yes"], skip_labels=["-"])
    path = write(tmp_path, "a.tsv", "s\ty\none\tyes\ntwo\t-\nthree\tno\n")
    examples = to_examples(labelled(read_rows(path, layout), layout), layout)
    assert [(e.fields["text"], e.label) for e in examples] == [("one", 1), ("three", 0)]


# file name, content, the number of the wrong line, a part of the message
BAD = [
    ("empty.tsv", "", 1, "the file is empty"),
    ("empty.jsonl", "", 1, "no rows"),
    ("header_only.tsv", "sentence\tlabel\n", 1, "no rows"),
    ("column.tsv", "sentense\tlabel\nx\t1\n", 1, "no column 'sentence'; there are 'sentense'"),
    ("twice.tsv", "sentence\tlabel\tlabel\nx\t1\t1\n", 1, "'label' is in the header 2 times"),
    ("few.tsv", "sentence\tlabel\nx\t1\ny\n", 3, "1 value for 2 columns"),
    ("many.tsv", "sentence\tlabel\nx\ty\t1\n", 2, "3 values for 2 columns"),
    ("gap.tsv", "sentence\tlabel\nx\t1\n\ny\t0\n", 3, "blank line"),
    ("label.tsv", "sentence\tlabel\nx\t1\ny\t2\n", 3, "unknown label '2' in column 'label'"),
    ("float.jsonl", '{"sentence": "x", "label": 1.0}\n', 1, "same_labels={1.0:\"1\"}'"),
    ("keys.csv", "sentence,label\nx,A\ny,0\n", 2, "same_labels={A:\"LABEL\"}'"),
    ("spelled.csv", "sentence,label\nx,1.0\ny,-0.0\n", 2, "same_labels: {'1.0': '1', '-0.0': '0'}"),
    ("no_label.tsv", "sentence\tlabel\nx\t\n", 2, "blank label"),
    ("no_text.tsv", "sentence\tlabel\nx\t1\n \t1\n", 3, "column 'sentence' is blank"),
    ("latin1.tsv", b"sentence\tlabel\nx\t1\ncaf\xe9\t1\n", 3, "0xe9 is not UTF-8"),
    ("json.jsonl", '{"sentence": "x", "label": 1}\n{"sentence": ', 2, "not JSON"),
    ("list.jsonl", "[1, 2]\n", 1, "not a JSON object"),
    ("key.jsonl", '{"sentence": "x"}\n', 1, "no column 'label'; there are 'sentence'"),
    ("null.jsonl", '{"sentence": null, "label": 1}\n', 1, "holds None"),
    ("half.jsonl", '{"sentence": "x", "label": 0.5}\n', 1, "holds 0.5"),
    ("surrogate.jsonl", '{"sentence": "\\ud83d x", "label": 1}', 1, r"surrogate pair, '\ud83d'"),
    ("deep.jsonl", '{"sentence": "x", "label": 1}\n' + "[" * 100_000, 2, "too many brackets"),
    ("huge.jsonl", '{"sentence": "x", "label": %s}' % ("1" * 5000), 1, "more than 4,300 digits"),
    ("twice.jsonl", '{"sentence": "x", "label": 1, "label": 0}', 1, "the key 'label' is twice"),
    ("nan.jsonl", '{"sentence": "x", "label": NaN}', 1, "holds nan"),
    ("list_of.jsonl", '[{"sentence": "x"}]', 1, "a .json file may hold a list of such objects"),
    ("utf16.csv", "sentence,label\n".encode("utf-16"), 1, "the file is UTF-16 or UTF-32"),
    ("no_bom.tsv", "sentence\tlabel\n".encode("utf-16-le"), 1, "there is a NUL character"),
    ("mac.csv", b"sentence,label\rx,1\ry,0\r", 1, "the lines end with CR alone"),
    ("quote.csv", 'sentence,label\nx,1\n"never closed,1\n', 3, "not CSV"),
    ("header.csv", "", 1, "the file is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "line", "problem"), BAD, ids=[row[0] for row in BAD])
def test_malformed_file_gives_a_one_line_message_with_file_and_line(
    tmp_path: Path, name: str, content: str | bytes, line: int, problem: str
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(UserError, match=re.escape(problem)) as error:
        to_examples(labelled(read_rows(path, REVIEWS), REVIEWS), REVIEWS)
    message = str(error.value)
    assert message.startswith(f"{path}:{line}: ")
    assert "\n" not in message


def test_a_ragged_row_without_room_for_a_label_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", "s1\ts2\tl1\tgold\na\tb\n")
    with pytest.raises(UserError, match=r"a\.tsv:2: the row has 2 values; it needs at least 3"):
        read_rows(path, SNLI)


def test_unknown_file_extension_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"allowed: \.tsv, \.csv, \.jsonl"):
        read_rows(write(tmp_path, "a.txt", "x"), REVIEWS)


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").mkdir()
    with pytest.raises(UserError, match=r"a\.tsv: the file cannot be read: Is a directory"):
        read_rows(tmp_path / "a.tsv", REVIEWS)


def test_a_file_is_found_by_the_first_stem_that_exists(tmp_path: Path) -> None:
    full = write(tmp_path, "train_full.tsv", "x")
    assert find_file(str(tmp_path), ["train", "train_full"], "task.data_dir") == full
    plain = write(tmp_path, "train.jsonl", "x")
    assert find_file(str(tmp_path), ["train", "train_full"], "task.data_dir") == plain


def test_a_missing_directory_is_named_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: there is no such directory; task\.data_dir"):
        find_file(str(tmp_path / "nowhere"), ["train"], "task.data_dir")


def test_a_missing_file_lists_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, "dev.tsv", "x")
    with pytest.raises(
        UserError, match=r"no file train\.tsv or .*; the directory contains dev\.tsv"
    ):
        find_file(str(tmp_path), ["train"], "task.data_dir")


def test_two_formats_of_one_file_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "train.tsv", "x")
    write(tmp_path, "train.csv", "x")
    with pytest.raises(UserError, match=r"there are both train\.tsv and train\.csv"):
        find_file(str(tmp_path), ["train"], "task.data_dir")
