"""Layouts that contradict themselves."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lozo_bench.errors import UserError
from lozo_bench.tasks.layout import Layout, RowOptions


def test_all_invalid_values_of_a_layout_are_reported_at_once() -> None:
    with pytest.raises(UserError) as error:
        Layout({"text": "a"}, "y", ["0"], columns=["b"], values={"txt": {}})
    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["labels", "columns", "values"]


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"fields": {}}, "fields"),
        ({"labels": ["0"]}, "labels"),
        ({"labels": ["0", "0"]}, "labels"),
        ({"columns": ["label", "other"]}, "columns"),
    ],
)
def test_invalid_layout_is_refused(changed: dict[str, object], key: str) -> None:
    arguments: dict[str, object] = {"fields": {"text": "text"}, "label": "label"}
    arguments |= {"labels": ["0", "1"]} | changed
    with pytest.raises(UserError, match=rf"^{key}: given "):
        Layout(**arguments)  # type: ignore[arg-type]


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
