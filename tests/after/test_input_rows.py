"""Rows to answer are read from files with the columns of the task's data."""

from __future__ import annotations

import json

import pytest

from lozo_bench.after.input_rows import read_input
from lozo_bench.config.schema import TaskConfig
from lozo_bench.errors import UserError
from lozo_bench.tasks.layout import Layout

TASK = TaskConfig(name="mine", prompt="{text} It was", options=[" bad", " good"])
LAYOUT = Layout({"text": "body"}, "class", ["neg", "pos"])


def read(path, layout=LAYOUT, names=("neg", "pos")):
    found = read_input(str(path), TASK, layout, names)
    return [(example.fields, example.label) for example in found.examples], found.labelled


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json"])
@pytest.mark.parametrize("labelled", [True, False])
def test_columns_are_those_of_the_tasks_data(tmp_path, name, labelled):
    rows = [{"body": "a film"} | ({"class": "pos"} if labelled else {})]
    path = tmp_path / name
    if name.endswith("sv"):
        mark = "," if name == "a.csv" else "\t"
        path.write_text("\n".join(mark.join(part) for part in (rows[0], rows[0].values())) + "\n")
    else:
        path.write_text(json.dumps(rows if name == "a.json" else rows[0]) + "\n")
    assert read(path) == ([({"text": "a film"}, 1 if labelled else 0)], labelled)


def test_rows_keep_their_own_columns_as_they_are_in_the_file(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"id": 7, "body": "a film", "from": {"page": 3}}, {"id": 8, "body": "a song"}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert read_input(str(path), TASK, LAYOUT, ["neg", "pos"]).own == rows


def test_a_plain_file_has_a_text_in_each_line(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("one\n\ntwo\n")
    assert read(path) == ([({"text": "one"}, 0), ({"text": "two"}, 0)], False)


@pytest.mark.parametrize(
    ("name", "text", "layout", "match"),
    [
        ("a.csv", "bdy\nx\n", LAYOUT, r"a.csv:2: no column 'body'; .*\(did you mean 'bdy'\?\)"),
        ("a.csv", "body,class\nx,odd\n", LAYOUT, "unknown label 'odd'"),
        ("a.csv", "text,label\nx,odd\n", None, "unknown label 'odd'; allowed: 'neg', 'pos'"),
        ("a.csv", "", LAYOUT, "there are no rows"),
        ("a.jsonl", "[1]\n", LAYOUT, "no named columns"),
        ("a.json", "{", LAYOUT, "the file is not valid"),
        ("a.txt", "\n", LAYOUT, "there are no rows"),
        ("a.csv", "body,more\nx\n", LAYOUT, "a.csv:2: the row has 1 value for 2 columns"),
        ("a.csv", "body\nx,y\n", None, "a.csv:2: the row has 2 values for 1 column"),
        ("a.csv", "body,body\nx,y\n", None, "a.csv:1: column 'body' is in the header 2 times"),
        ("a.jsonl", '{"body": null}\n', LAYOUT, "a.jsonl:1: no column 'body'"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, name, text, layout, match):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=match):
        read(path, layout)


@pytest.mark.parametrize("layout", [LAYOUT, None])
def test_a_table_is_read_as_spreadsheets_write_it(tmp_path, layout):
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfbody\r\n"a ""nice"" film, really"\r\n"two\r\nlines"\r\n')
    rows, labelled = read(path, layout)
    assert not labelled
    assert [list(fields.values()) for fields, _ in rows] == [
        ['a "nice" film, really'],
        ["two\nlines"],
    ]
    assert list(rows[0][0]) == ["text" if layout else "body"]


@pytest.mark.parametrize("odd", ["\x0b", "\x0c", "\x85", "\u2028"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
def test_only_a_newline_ends_a_row(tmp_path, name, odd):
    path, text = tmp_path / name, f"one{odd}row"
    line = json.dumps({"body": text}, ensure_ascii=odd < " ") if name == "a.jsonl" else text
    path.write_text(f"body\n{line}\n" if name == "a.csv" else f"{line}\n")
    assert read(path) == ([({"text": text}, 0)], False)
