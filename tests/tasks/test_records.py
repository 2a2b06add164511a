from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from lozo_bench.errors import UserError
from lozo_bench.tasks.files import read_rows
from lozo_bench.tasks.layout import Layout, RowOptions, Wanted
from lozo_bench.tasks.records import rows_of

if TYPE_CHECKING:
    from pathlib import Path

NESTED = {"a": {"t": "text", "l": [{"q": "one", "m": [{"x": 1}, {"x": 2}]}, {"q": "two", "m": []}]}}


def rows(record: dict[str, Any], **wanted: Any) -> list[tuple[str, list[str]]]:
    found = rows_of("f", record, Wanted(**wanted))
    return [(row.where, list(row.values.values())) for row in found]


def test_dotted_column_is_read_from_the_nested_record() -> None:
    assert rows({"a": {"b": "deep"}}, texts=("a.b",)) == [("f", ["deep"])]


def test_column_with_a_dot_in_its_own_name_takes_precedence() -> None:
    assert rows({"a.b": "flat", "a": {"b": "deep"}}, texts=("a.b",)) == [("f", ["flat"])]


def test_each_item_of_an_exploded_list_is_a_row_with_its_position() -> None:
    found = rows(NESTED, texts=("a.t", "a.l.q", "a.l.m.x"), explode=("a.l", "a.l.m"))
    assert found == [
        ("f:a.l[0].m[0]", ["text", "one", "1"]),
        ("f:a.l[0].m[1]", ["text", "one", "2"]),
    ]


def test_star_explodes_the_record_by_its_keys() -> None:
    record = {"id1": {"q": ["x"], "t": "a"}, "id2": {"q": ["y", "z"], "t": "b"}}
    assert rows(record, texts=("*.t", "*.q"), explode=("*", "*.q")) == [
        ("f:id1.q[0]", ["a", "x"]),
        ("f:id2.q[0]", ["b", "y"]),
        ("f:id2.q[1]", ["b", "z"]),
    ]


def test_answers_come_from_lists_of_objects_and_from_objects_of_lists() -> None:
    for answers in ([{"t": "x"}, {"t": "y"}, {"t": "x"}], {"t": ["x", "y"]}):
        (row,) = rows_of("f", {"a": answers}, Wanted((), answers=("a.t",)))
        assert row.answers == ("x", "y")


def drop(number: str = "", spans: tuple[str, ...] = (), year: str = "") -> dict[str, Any]:
    return {"number": number, "date": {"day": "", "month": "", "year": year}, "spans": [*spans]}


@pytest.mark.parametrize(
    ("annotations", "join_spans", "answers"),
    [
        ([drop("5")], False, ("5",)),
        ([drop(year="1999")], False, ("1999",)),
        ([drop(spans=("a", "b")), drop("5")], False, ("a", "b", "5")),
        ([drop(spans=("a", "b")), drop("5")], True, ("a; b", "5")),
        ([drop(), drop("5")], False, ("5",)),
        # An annotation with values of two kinds: there is no answer, as in the data on the hub.
        ([drop("5"), drop("5", spans=("a",))], False, ()),
        ([drop(spans=("a",), year="1999")], False, ()),
    ],
)
def test_answer_of_drop_is_a_number_a_date_or_spans(
    annotations: list[dict[str, Any]], join_spans: bool, answers: tuple[str, ...]
) -> None:
    wanted = Wanted((), answers=("a",), join_spans=join_spans)
    (row,) = rows_of("f", {"a": annotations}, wanted)
    assert row.answers == answers


def test_options_at_places_are_the_different_texts_in_alphabetical_order() -> None:
    spans = [{"start": s, "end": s + 2} for s in (8, 0, 4, 12)]
    (row,) = rows_of("f", {"t": "Tom Ann Zoe Ann", "a": spans}, Wanted((), "a", places_in="t"))
    assert row.options == ("Ann", "Tom", "Zoe")


BAD = [
    ({"a": {"b": 1}}, {"texts": ("a.c",)}, "f: no column 'a.c'; there are 'a.b'"),
    ({"a": "x"}, {"texts": ("a.c",)}, "f: no column 'a.c': 'x' is not an object with 'c'"),
    ({"a": ["x"]}, {"texts": ("a",)}, "f: column 'a' holds ['x']; allowed: a text"),
    ({"a": "x"}, {"texts": (), "explode": ("a",)}, "f: column 'a' holds 'x'; allowed: a list"),
    ({"a": [{"b": 1}]}, {"texts": ("a.c",), "explode": ("a",)}, "f:a[0]: no column 'a.c'"),
    (
        {"a": []},
        {"texts": (), "options": "a"},
        "f: column 'a' is an empty list, so there is nothing to choose from; what to do: ",
    ),
    ({"a": "x"}, {"texts": (), "options": "a"}, "f: column 'a' holds 'x'; allowed: a list"),
    ({"a": ["x", " "]}, {"texts": (), "options": "a"}, "f: a text in column 'a' is blank"),
    (
        {"a": [{"start": 1, "end": 3}], "t": "abc"},
        {"texts": (), "options": "a", "places_in": "t"},
        "f: column 'a' holds {'start': 1, 'end': 3}; allowed",
    ),
    ({"a": [{"t": None}]}, {"texts": (), "answers": ("a.t",)}, "f: column 'a.t' holds None"),
    (
        {"a": [{"number": "", "date": "", "spans": []}]},
        {"texts": (), "answers": ("a",)},
        "allowed: an answer as in DROP's files",
    ),
]


@pytest.mark.parametrize(("record", "wanted", "message"), BAD)
def test_malformed_record_is_reported_with_its_position(
    record: dict[str, Any], wanted: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        rows(record, **wanted)


CHOICES = Layout({"q": "q"}, "y", ["0", "1", "2"], options=RowOptions("choices"))


def test_json_file_is_one_record_and_malformed_json_is_reported_with_its_line(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.json"
    layout = Layout({"q": "d.q"}, "d.y", ["0", "1"], explode=["d"])
    path.write_text('{"d": [\n{"q": "x", "y": 1},\n{"q": "z", "y": 0}]}')
    assert [row.where for row in read_rows(path, layout)] == [f"{path}:d[0]", f"{path}:d[1]"]
    path.write_text('{"d": [\n{"q": "x" "y": 1}]}')
    with pytest.raises(UserError, match=r"a\.json:2: the file is not JSON"):
        read_rows(path, layout)
    path.write_text("[]")
    with pytest.raises(UserError, match=r"a\.json:1: there are no rows"):
        read_rows(path, layout)


def test_table_with_list_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("q\ty\tchoices\nx\t1\ta\n")
    with pytest.raises(
        UserError, match=r"a\.tsv: a column of a table holds one text; allowed: \.js"
    ):
        read_rows(path, CHOICES)
