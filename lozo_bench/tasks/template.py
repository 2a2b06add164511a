"""Text templates with fields: ``{field}`` or ``{field:filter,filter}``."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

from lozo_bench.errors import UserError, bad_data, bad_value, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BLANK = "_"


def lower_first(text: str) -> str:
    """Return the text with its first letter in lower case."""
    return text[:1].lower() + text[1:]


def upper_first(text: str) -> str:
    """Return the text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def lower_first_word(text: str) -> str:
    """Return the text with its first word in lower case, unless that word is "I"."""
    word, space, rest = text.partition(" ")
    return text if word == "I" else word.lower() + space + rest


def no_final_period(text: str) -> str:
    """Return the text without the white space and without one period at its end."""
    return text.rstrip().removesuffix(".")


def question_mark(text: str) -> str:
    """Return the text with a question mark at its end; add one if there is none."""
    return text if text.endswith("?") else text + "?"


def oneline(text: str) -> str:
    r"""Return the text with a space in place of each new line that is spelled ``\n``."""
    return text.replace("\\n", " ")


def before_blank(text: str) -> str:
    """Return the text before the blank. Raise ValueError unless there is exactly one blank."""
    return _around_blank(text)[0]


def after_blank(text: str) -> str:
    """Return the text after the blank. Raise ValueError unless there is exactly one blank."""
    return _around_blank(text)[1]


def _around_blank(text: str) -> tuple[str, str]:
    if text.count(BLANK) != 1:
        raise ValueError(f"{text!r} has {text.count(BLANK)} blanks {BLANK!r}; 1 is needed")
    before, _, after = text.partition(BLANK)
    return before, after


FILTERS: Mapping[str, Callable[[str], str]] = {
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


class Template:
    """A text with ``{field}`` placeholders. Literal braces are doubled: ``{{`` and ``}}``.

    The filters of a field are applied from left to right.
    """

    def __init__(self, text: str, key: str) -> None:
        """Parse the text.

        Args:
            text: The template.
            key: The config key of the template, for error messages.

        Raises:
            UserError: The text is malformed; the message names ``key`` and what is allowed.
        """
        self.text, self.key = text, key
        try:
            parsed = list(string.Formatter().parse(text))
        except ValueError as error:
            raise bad_value(key, text, f"balanced braces ({error})") from error
        self._pieces = [
            (literal, field, self._filters(field, spec, conversion))
            for literal, field, spec, conversion in parsed
        ]
        self.fields = [field for _, field, _ in self._pieces if field]

    def _filters(self, field: str | None, spec: str | None, conversion: str | None) -> list[str]:
        if conversion:
            raise bad_value(self.key, self.text, f"no conversion such as !{conversion}")
        if field is None:
            return []
        names = spec.split(",") if spec else []
        if not field.isidentifier():
            raise bad_value(self.key, self.text, "text with {field} or {field:filter} in it")
        for name in names:
            if name not in FILTERS:
                allowed = f"{{field}} or {{field:filter}} with the filters {', '.join(FILTERS)}"
                hint = did_you_mean(name, FILTERS)
                raise bad_value(
                    self.key, self.text, f"{allowed}; {name!r} is not one of them{hint}"
                )
        return names

    def fill(self, fields: Mapping[str, str], where: str) -> str:
        """Return the text with the values of a row in place of its fields.

        Args:
            fields: The texts of the row by field name.
            where: Where the row was read, for error messages.

        Raises:
            UserError: The row does not have a field of the template, or a filter cannot be applied
                to its text.
        """
        filled = ""
        for literal, field, filters in self._pieces:
            filled += literal
            if field is None:
                continue
            if field not in fields:
                raise self._no_field(field, fields)
            text = fields[field]
            for name in filters:
                try:
                    text = FILTERS[name](text)
                except ValueError as error:
                    raise bad_data(where, f"field {field!r}: {error}") from error
            filled += text
        return filled

    def _no_field(self, field: str, fields: Mapping[str, str]) -> UserError:
        hint = did_you_mean(field, fields)
        allowed = f"the fields {', '.join(fields)}; {field!r} is not one of them{hint}"
        return bad_value(self.key, self.text, allowed)
