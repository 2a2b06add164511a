"""`make test` runs the first cases of each test, `make test-all` all of them."""

from __future__ import annotations

from pathlib import Path

from quick import QUICK, thorough

TESTS = Path(__file__).parent


def test_every_test_that_is_named_exists():
    for name in QUICK:
        path, _, test = name.partition("::")
        assert f"def {test}(" in (TESTS / path).read_text(encoding="utf-8"), name


def test_the_first_cases_are_quick_and_a_test_that_is_not_named_is_always_quick():
    name = "parallel/test_trajectory.py::test_two_processes_search_as_one"
    cases = [f"{name}[batch]", "test_quick.py::test_x[1]", f"{name}[candidates]"]
    assert thorough(cases) == [False, False, True]


def test_a_test_of_which_no_case_is_quick_is_left_out():
    (name,) = (name for name, count in QUICK.items() if count == 0)
    assert thorough([name]) == [True]
