from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from lozo_bench.errors import UserError
from lozo_bench.tasks.files import read_rows
from lozo_bench.tasks.records import rows_of
from lozo_bench.tasks.rows import Layout, RowOptions, Wanted, labelled, to_examples

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
FILLED = Layout(
    {"q": "q"}, None, [], options=RowOptions("choices", into="q", blank="@"), answers=["gold"]
)


def examples(folder: Path, layout: Layout, *records: dict[str, Any]) -> list[Any]:
    path = folder / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    return to_examples(labelled(read_rows(path, layout), layout), layout)


def test_label_is_an_index_into_the_rows_own_options(tmp_path: Path) -> None:
    (example,) = examples(tmp_path, CHOICES, {"q": "x", "choices": ["a", "b", "a"], "y": 1})
    assert (example.options, example.label, example.golds) == (("a", "b", "a"), 1, ())
    with pytest.raises(
        UserError, match=r"a\.jsonl:1: the label is option 2, but the row has 1 option"
    ):
        examples(tmp_path, CHOICES, {"q": "x", "choices": ["a"], "y": 2})


def test_answers_determine_the_correct_options_of_a_row(tmp_path: Path) -> None:
    record = {"q": "is @ or @", "choices": ["z", "y", "x"], "gold": ["z", "elsewhere", "x"]}
    (example,) = examples(tmp_path, FILLED, record)
    assert example.options == ("is z or z", "is y or y", "is x or x")
    # The alphabetically first answer that is an option is trained on.
    assert (example.label, example.golds) == (2, (2, 0))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gold": ["w"]}, "a.jsonl:1: none of the answers 'w' is among the options"),
        ({"gold": []}, "a.jsonl:1: there is no answer in gold"),
        ({"q": "is"}, "a.jsonl:1: the field 'q' has no '@' for the options to replace"),
    ],
)
def test_row_without_a_usable_answer_is_refused(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        examples(tmp_path, FILLED, {"q": "is @", "choices": ["z"], "gold": ["z"]} | changed)


def test_whole_values_and_parts_of_texts_are_replaced(tmp_path: Path) -> None:
    layout = Layout(
        {"q": "q", "c": "c"}, "y", ["0", "1"],
        values={"c": {"effect": "so"}}, replace={"q": {"@h\n": "- "}}, same_labels={"no": "0"},
    )  # fmt: skip
    record = {"q": "a\n@h\nb", "c": "effect", "y": "no"}
    (example,) = examples(tmp_path, layout, record)
    assert (example.fields, example.label) == ({"q": "a\n- b", "c": "so"}, 0)
    with pytest.raises(UserError, match=r"a\.jsonl:1: column 'c' holds 'x'; allowed: 'effect'"):
        examples(tmp_path, layout, record | {"c": "x"})


@pytest.mark.parametrize(
    ("span", "text", "found"),
    [
        ("The cup", "see the cup", "the cup"),
        ("the cup", "The cup fell", "The cup"),
        ("the cup.", "see the cup now", "the cup"),
        ("the\ncup", "see the cup", "the cup"),
        ("a cup and jar", "a cup", "a cup and jar"),
    ],
)
def test_span_is_respelled_as_in_its_text(tmp_path: Path, span: str, text: str, found: str) -> None:
    layout = Layout({"s": "s", "t": "t"}, "y", ["0", "1"], spans={"s": "t"})
    (example,) = examples(tmp_path, layout, {"s": span, "t": text, "y": 0})
    assert example.fields["s"] == found


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


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label": None}, "label: given None"),
        ({"same_labels": {"x": "2"}}, "same_labels: given '2'; allowed: one of 0, 1"),
        ({"values": {"c": {}}}, "values: given 'c'; allowed: one of the fields q"),
        ({"replace": {"c": {}}}, "replace: given 'c'"),
        ({"spans": {"q": "c"}}, "spans: given 'c'"),
        ({"options": RowOptions("o", into="c", blank="@")}, "options.into: given 'c'"),
    ],
)
def test_layout_that_refers_to_unknown_names_is_refused(
    changed: dict[str, Any], message: str
) -> None:
    arguments = {"fields": {"q": "q"}, "label": "y", "labels": ["0", "1"]} | changed
    with pytest.raises(UserError, match=rf"^{re.escape(message)}"):
        Layout(**arguments)  # type: ignore[arg-type]
