"""`build` instantiates the class that a config node names, after it has checked the arguments."""

from __future__ import annotations

import pytest

from lozo_bench.config.build import build, describe
from lozo_bench.engine import Draws, InPlace
from lozo_bench.errors import UserError
from lozo_bench.optimizers.lozo import Lozo

LOZO = {
    "_target_": "lozo_bench.optimizers.lozo.Lozo",
    "lr": 1e-3,
    "eps": 1e-3,
    "rank": 2,
    "nu": 50,
}


def assert_refused(node, match):
    with pytest.raises(UserError, match=match) as caught:
        build(node, "optimizer", InPlace({}), Draws(0))
    assert "\n" not in str(caught.value)


def test_build_returns_an_instance_of_the_named_class():
    assert isinstance(build(LOZO, "optimizer", InPlace({}), Draws(0)), Lozo)


@pytest.mark.parametrize("target", ["os.system", "lozo_benchmark.X", None, 3])
def test_a_target_outside_this_package_is_refused(target):
    assert_refused(
        {"_target_": target}, r"^optimizer\._target_: given .* allowed: a class of this package"
    )


@pytest.mark.parametrize(
    "target", ["lozo_bench.optimizers.nope.Nope", "lozo_bench.optimizers.lozo.Nope"]
)
def test_the_error_names_a_class_that_does_not_exist(target):
    assert_refused({"_target_": target}, f"there is no {target}")


def test_a_function_is_refused_as_target():
    assert_refused(
        {"_target_": "lozo_bench.optimizers.base.check_count"}, "a class of this package"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": "abc"}, r"^optimizer\.lr: given 'abc'; allowed: a number$"),
        ({"lr": True}, r"^optimizer\.lr: given True; allowed: a number$"),
        ({"nu": 1.5}, r"^optimizer\.nu: given 1\.5; allowed: a whole number$"),
        ({"nu": 0}, r"^optimizer\.nu: given 0; allowed: a whole number >= 1$"),
        ({"eps": 0}, r"^optimizer\.eps: given 0; allowed: a number > 0$"),
        ({"eps": float("nan")}, r"^optimizer\.eps: given nan; allowed: a number > 0$"),
        ({"rank": 0}, r"^optimizer\.rank: given 0; allowed: a whole number >= 1$"),
        ({"scale": "papr"}, r"^optimizer\.scale: given 'papr'; allowed: one of paper, reference$"),
        ({"replicate_boundary_bug": 1}, r"allowed: true or false$"),
        ({"n": 1}, r"^optimizer\.n: no such key.*; it takes lr, eps, rank, nu, scale"),
    ],
)
def test_bad_arguments_name_the_key_the_value_and_what_is_allowed(change, message):
    assert_refused(LOZO | change, message)


def test_a_missing_argument_is_named():
    assert_refused({k: v for k, v in LOZO.items() if k != "nu"}, r"^optimizer\.nu: missing")


def test_describe_writes_types_in_words():
    assert describe(list[str]) == "a list whose items are each a string"
    assert (
        describe(dict[str, int] | None) == "a mapping whose values are each a whole number or null"
    )
