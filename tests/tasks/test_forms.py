from __future__ import annotations

import pytest

from lozo_bench.tasks.forms import FORMS, Form

# form, text, what it makes of it
MADE = [
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


@pytest.mark.parametrize(("form", "text", "made"), MADE)
def test_a_form_changes_a_text(form: str, text: str, made: str) -> None:
    assert Form(f"{{x:{form}}}", "task.prompt").fill({"x": text}, "") == made


def test_every_form_is_tested() -> None:
    assert {form for form, _, _ in MADE} == set(FORMS)


def test_forms_are_applied_from_left_to_right() -> None:
    assert Form("{x:question_mark,strip}", "task.prompt").fill({"x": " a "}, "") == "a ?"
    assert Form("{x:strip,question_mark}", "task.prompt").fill({"x": " a "}, "") == "a?"


def test_braces_in_a_fields_text_are_left_alone() -> None:
    assert Form("{x} {{y}}", "task.prompt").fill({"x": "{y}"}, "") == "{y} {y}"
