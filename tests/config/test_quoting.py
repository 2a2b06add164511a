"""Overrides that Hydra's grammar does not take are reported with what to type instead."""

from __future__ import annotations

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from lozo_bench.config.quoting import ambiguous, unreadable


def read(override):
    return OverridesParser.create().parse_override(override)


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("task.prompt=A {x} b, c", "A {x} b, c"),
        ("task.prompt={x}", "{x}"),
        ("task.prompt=it's", "it's"),
        ('task.prompt=say "x', 'say "x'),
        ("task.prompt=<a>|&;(#)!", "<a>|&;(#)!"),
        ("model.path=~/models/ä", "~/models/ä"),
        ("task.prompt=a=b", "a=b"),
        ("task.prompt=C:\\{x} y", "C:\\{x} y"),
        ("task.options=[a=1, 'b c',it's]", ["a=1", "b c", "it's"]),
        ("optimizer.lr=2e-6,", 2e-6),
        ("+optimizer.lr=,1", 1),
    ],
)
def test_what_the_line_says_can_be_pasted_into_a_shell_and_means_what_was_typed(override, meant):
    with pytest.raises(HydraException) as caught:
        read(override)
    line = unreadable(override, str(caught.value))
    assert "\n" not in line
    (pasted,) = shlex.split(line.partition("what to do: type ")[2])
    assert pasted.partition("=")[0] == override.partition("=")[0]
    assert read(pasted).value() == meant


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer.lr=[1", "close the list with ]"),
        ("steps", "give steps=..."),
        ("steps =5", "without spaces around the ="),
        ("task.prompt=a\n{x}", "into a YAML file"),
    ],
)
def test_other_mistakes_are_named(override, said):
    line = unreadable(override, "mismatched input expecting this or that")
    assert line.endswith(said)
    assert line.startswith(f"cannot read the override {override!r}")
    assert "\n" not in line


def test_of_several_values_without_m_the_line_gives_all_three_meanings():
    line = ambiguous("model.path=a,b c")
    assert "add -m" in line
    text, listed = (
        shlex.split(form)[0] for form in ("'model.path=\"a,b c\"'", "'model.path=[a,b c]'")
    )
    assert "type 'model.path=\"a,b c\"' for a text" in line
    assert "'model.path=[a,b c]' for a list" in line
    assert read(text).value() == "a,b c"
    assert read(listed).value() == ["a", "b c"]
