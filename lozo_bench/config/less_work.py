"""Faster replacements for two functions of OmegaConf and Hydra, with the same results.

Each is in place only inside its context. If a later version of the library does not have the
function any more, nothing is replaced, and composing a config only takes longer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import omegaconf._utils
import omegaconf.base
from hydra._internal import defaults_list

_Function = Callable[..., Any]
_PARSED = 1000  # so many interpolations are kept; ours are about a hundred


@contextmanager
def interpolations_parsed_once() -> Iterator[None]:
    """Inside this context, OmegaConf parses each interpolation once, not each time it is used."""
    remembered = functools.lru_cache(_PARSED)
    with (
        _replaced(omegaconf.base, "parse", remembered),
        _replaced(omegaconf._utils, "parse", remembered),
    ):
        yield


@contextmanager
def choices_listed_where_used() -> Iterator[None]:
    """Inside this context, Hydra lists the choices only for files whose defaults refer to them.

    Otherwise it does so for every file that it composes, which is a third of its work.
    """
    with _replaced(defaults_list, "_create_interpolation_map", _if_used):
        yield


def _if_used(list_choices: _Function) -> _Function:
    def listed(overrides: Any, defaults: Any, self_added: bool) -> Any:
        asking = [one.get_config_path() for one in defaults if one.is_interpolation()]
        if not asking:
            return None
        # Only ${defaults.NUMBER.GROUP} asks for more than the choices made so far.
        texts = [*asking, *map(str, overrides.known_choices.values())]
        named = defaults if any("${defaults" in text for text in texts) else []
        return list_choices(overrides, named, self_added)

    return listed


@contextmanager
def _replaced(
    module: ModuleType, name: str, change: Callable[[_Function], _Function]
) -> Iterator[None]:
    function = getattr(module, name, None)
    if function is None:
        yield
        return
    setattr(module, name, change(function))
    try:
        yield
    finally:
        setattr(module, name, function)
