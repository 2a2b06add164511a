from __future__ import annotations

import pytest

from lozo_bench.tasks.template import FILTERS, Template

# filter, text, expected result
CASES = [
    ("strip", " a b \n", "a b"),
    ("lower", "She SAW", "she saw"),
    ("lower_first", "She SAW", "she SAW"),
    ("upper_first", "is it", "Is it"),
    ("upper_first", "", ""),
    ("lower_first_word", "The MEN left", "the MEN left"),
    ("lower_first_word", "I left", "I left"),
    ("lower_first_word", "It's mine", "it's mine"),
    ("lower_first_word", "IT fell", "it fell"),
    ("no_final_period", "It fell. ", "It fell"),
    ("no_final_period", "It fell!", "It fell!"),
    ("no_final_period", "It fell..", "It fell."),
    ("question_mark", "is it", "is it?"),
    ("question_mark", "is it?", "is it?"),
    ("oneline", r"so\nit\n\nis", "so it  is"),
    ("oneline", "a real\nline", "a real\nline"),
    ("before_blank", "so _ left", "so "),
    ("after_blank", "so _ left", " left"),
]


@pytest.mark.parametrize(("name", "text", "expected"), CASES)
def test_filter_changes_the_text(name: str, text: str, expected: str) -> None:
    assert Template(f"{{x:{name}}}", "task.prompt").fill({"x": text}, "") == expected


def test_every_filter_is_tested() -> None:
    assert {name for name, _, _ in CASES} == set(FILTERS)


def test_filters_are_applied_from_left_to_right() -> None:
    assert Template("{x:question_mark,strip}", "task.prompt").fill({"x": " a "}, "") == "a ?"
    assert Template("{x:strip,question_mark}", "task.prompt").fill({"x": " a "}, "") == "a?"


def test_braces_in_the_text_of_a_field_are_kept() -> None:
    assert Template("{x} {{y}}", "task.prompt").fill({"x": "{y}"}, "") == "{y} {y}"
