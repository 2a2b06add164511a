"""The options of a class are read from its source, without the import of torch."""

from __future__ import annotations

import re

import pytest

from lozo_bench.config.build import _parameters, _target
from lozo_bench.config.paths import CONF
from lozo_bench.config.signature import errors_in_node, parameters_of

TARGETS = sorted(
    {
        found[1]
        for path in CONF.rglob("*.yaml")
        for found in re.finditer(r"_target_: (lozo_bench\.(?!launch)\S+)", path.read_text())
    }
)


@pytest.mark.parametrize("target", TARGETS)
def test_the_source_says_the_same_as_the_imported_class(target):
    given = 2 if ".optimizers." in target else int(".trackers." in target)
    assert parameters_of(target, given) == _parameters(_target(target, "node"), "node", given)


@pytest.mark.parametrize(
    "target",
    [
        "lozo_bench.optimizers.nope.Nope",
        "lozo_bench.optimizers.lozo.Nope",
        "lozo_bench.tasks.base.Splits",  # a dataclass
        "lozo_bench.tasks.base.Source",  # a protocol
        "lozo_bench.nope",
    ],
)
def test_what_the_source_does_not_tell_is_left_to_the_import(target):
    assert parameters_of(target) is None
    assert not list(errors_in_node({"_target_": target, "x": 1}, "node"))


def test_all_mistakes_of_a_node_are_reported_together():
    node = {"_target_": "lozo_bench.tuning.lora.Lora", "r": "4", "alpa": 1.0, "targets": "q"}
    assert [str(error) for error in errors_in_node(node, "tuning")] == [
        "tuning.r: given '4'; allowed: a whole number",
        "tuning.alpa: no such key (did you mean 'alpha'?); it takes r, alpha, targets, train_head",
        "tuning.alpha: missing; give tuning.alpha=...",
    ]
