"""From the rows of a file to examples: options, answers, and texts that are replaced."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from lozo_bench.errors import UserError
from lozo_bench.tasks.files import read_rows
from lozo_bench.tasks.layout import Layout, RowOptions
from lozo_bench.tasks.rows import labelled, to_examples

if TYPE_CHECKING:
    from pathlib import Path

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
