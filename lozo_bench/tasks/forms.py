"""Texts with fields in them: ``{field}``, or ``{field:form,form}`` with what is done to it."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

from lozo_bench.errors import UserError, bad_data, bad_value, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BLANK = "_"


def lower_first(text: str) -> str:
    """With the first letter in lower case."""
    return text[:1].lower() + text[1:]


def upper_first(text: str) -> str:
    """With the first letter in upper case."""
    return text[:1].upper() + text[1:]


def lower_first_word(text: str) -> str:
    """With the first word in lower case, unless it is "I"."""
    word, space, rest = text.partition(" ")
    return text if word == "I" else word.lower() + space + rest


def no_final_period(text: str) -> str:
    """Without the white space and one period at the end."""
    return text.rstrip().removesuffix(".")


def question_mark(text: str) -> str:
    """With a question mark at the end, if there is none."""
    return text if text.endswith("?") else text + "?"


def oneline(text: str) -> str:
    """With a space for each new line, where that is spelt as a backslash and an n."""
    return text.replace("\\n", " ")


def before_blank(text: str) -> str:
    """What stands before the blank. Raises ValueError unless there is one blank."""
    return _around_blank(text)[0]


def after_blank(text: str) -> str:
    """What stands after the blank. Raises ValueError unless there is one blank."""
    return _around_blank(text)[1]


def _around_blank(text: str) -> tuple[str, str]:
    if text.count(BLANK) != 1:
        raise ValueError(f"{text!r} has {text.count(BLANK)} blanks {BLANK!r}; 1 is needed")
    before, _, after = text.partition(BLANK)
    return before, after


FORMS: Mapping[str, Callable[[str], str]] = {
    "strip": str.strip,
    "lower": str.lower,
    "lower_first": lower_first,
    "upper_first": upper_first,
    "lower_first_word": lower_first_word,
    "no_final_period": no_final_period,
    "question_mark": question_mark,
    "oneline": oneline,
    "before_blank": before_blank,
    "after_blank": after_blank,
}


class Form:
    """A text with fields in it; braces of its own are doubled.

    ``key`` names it for error messages. Forms are applied from left to right.
    """

    def __init__(self, text: str, key: str) -> None:
        """Read it. Raises UserError naming ``key`` and what is allowed."""
        self.text, self.key = text, key
        try:
            parsed = list(string.Formatter().parse(text))
        except ValueError as error:
            raise bad_value(key, text, f"balanced braces ({error})") from error
        self._pieces = [
            (literal, field, self._forms(field, forms, conversion))
            for literal, field, forms, conversion in parsed
        ]
        self.fields = [field for _, field, _ in self._pieces if field]

    def _forms(self, field: str | None, forms: str | None, conversion: str | None) -> list[str]:
        if conversion:
            raise bad_value(self.key, self.text, f"no conversion such as !{conversion}")
        if field is None:
            return []
        names = forms.split(",") if forms else []
        if not field.isidentifier():
            raise bad_value(self.key, self.text, "{field} or {field:form} between the text")
        for name in names:
            if name not in FORMS:
                allowed = f"{{field}} or {{field:form}} with forms of {', '.join(FORMS)}"
                hint = did_you_mean(name, FORMS)
                raise bad_value(self.key, self.text, f"{allowed}; {name!r} is none{hint}")
        return names

    def fill(self, fields: Mapping[str, str], where: str) -> str:
        """The text with the fields of the row that stands at ``where``.

        Raises UserError if it has not such a field, or its text not what a form looks for.
        """
        filled = ""
        for literal, field, forms in self._pieces:
            filled += literal
            if field is None:
                continue
            if field not in fields:
                raise self._no_field(field, fields)
            text = fields[field]
            for name in forms:
                try:
                    text = FORMS[name](text)
                except ValueError as error:
                    raise bad_data(where, f"field {field!r}: {error}") from error
            filled += text
        return filled

    def _no_field(self, field: str, fields: Mapping[str, str]) -> UserError:
        allowed = f"the fields {', '.join(fields)}{did_you_mean(field, fields)}"
        return bad_value(self.key, self.text, f"{allowed}; {field!r} is none")
