"""Options that C-LoRA, F-LoRA, BBT and BBTv2 share, and their values in released code."""

from __future__ import annotations

from typing import TypeVar

from lozo_bench.errors import bad_value
from lozo_bench.optimizers.base import check_count, check_positive
from lozo_bench.optimizers.layer_turns import Statistics

Option = TypeVar("Option")


def check_search_options(
    intrinsic_dim: int, budget: int, popsize: int, sigma: float, alpha: float
) -> None:
    """Check the ranges of the options.

    Raises:
        BadValueError: an option is out of range; the error names it.
    """
    check_count("intrinsic_dim", intrinsic_dim)
    check_count("budget", budget)
    if popsize < 2:
        raise bad_value("popsize", popsize, "a whole number >= 2")
    if budget < popsize:  # with a model, it must be this for each of the layers
        raise bad_value("budget", budget, f"at least popsize ({popsize}) for each layer")
    check_positive("sigma", sigma)
    check_positive("alpha", alpha)


def as_released(given: Option | None, faithful: bool, ours: Option, released: Option) -> Option:
    """Return an option's value: the one that was given, or else ours, or the released code's."""
    if given is not None:
        return given
    return released if faithful else ours


def statistics_of(scaled: bool, faithful: bool) -> Statistics:
    """Return what the standard deviations of the layers' inputs are taken from.

    Args:
        scaled: whether the projections are scaled by them.
        faithful: as in the released code.
    """
    if not scaled:
        return "none"
    return "first_candidate" if faithful else "model"
