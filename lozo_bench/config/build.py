"""Build the object that a config node names, and check its arguments before anything is loaded.

``_target_`` is the only registry: a new optimizer or task source is one class and one YAML file.
The signature of the class is the schema of the node.
"""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union

from lozo_bench.config.plugins import OWN, check_target_name
from lozo_bench.errors import (
    BadValueError,
    CombinedError,
    UserError,
    bad_value,
    did_you_mean,
    raise_all,
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument of a class that comes from the config: its type, and whether it must be given."""

    hint: Any
    required: bool


def build(node: Mapping[str, Any], key: str, *parts: Any) -> Any:
    """Return ``node['_target_'](*parts, **the other keys)``.

    Args:
        node: a plain mapping; its ``_target_`` is the full name of a class of this package or of
            one that the user allows (see `lozo_bench.config.plugins`).
        key: the full key of the node in the config, for error messages.
        parts: positional arguments that do not come from the config.

    Raises:
        UserError: the target is not a class of an allowed package, or keys are unknown, missing,
            of the wrong type or out of range. Lists every unknown or missing key and wrong type;
            only if there is none, the values that the class refuses.
    """
    target = _target(node.get("_target_"), key)
    parameters = _parameters(target, key, given=len(parts))
    options = options_of(node, parameters)
    raise_all(option_errors(parameters, options, key))
    try:
        return target(*parts, **options)
    except (BadValueError, CombinedError) as error:
        raise error.under(key) from error


def require(built: object, key: str, *attributes: str) -> None:
    """Refuse an object that lacks what its kind must have: the class is that of another kind.

    Args:
        built: what `build` returned.
        key: the full key of its node in the config.
        attributes: the names of the attributes and methods.

    Raises:
        UserError: one is missing.
    """
    if all(hasattr(built, name) for name in attributes):
        return
    cls = type(built)
    words = f"a class with {' and '.join(attributes)}"
    raise bad_value(f"{key}._target_", f"{cls.__module__}.{cls.__qualname__}", words)


def options_of(node: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return the options of a node, with whole numbers as texts where a text is expected."""
    return {
        str(name): _with_texts(value, parameters[name].hint) if name in parameters else value
        for name, value in node.items()
        if name != "_target_"
    }


def option_errors(
    parameters: Mapping[str, Parameter], options: Mapping[str, Any], key: str
) -> Iterator[UserError]:
    """Yield an error for each option that is unknown, missing or of the wrong type.

    Args:
        parameters: what the class takes.
        options: what the config gives.
        key: the full key of the node in the config.
    """
    for name, value in options.items():
        if name not in parameters:
            takes = f"it takes {', '.join(parameters)}" if parameters else "it takes no options"
            yield UserError(f"{key}.{name}: no such key{did_you_mean(name, parameters)}; {takes}")
        elif not _fits(value, parameters[name].hint):
            allowed = describe(parameters[name].hint)
            yield bad_value(f"{key}.{name}", value, allowed + _quoting(value, allowed))
    for name, parameter in parameters.items():
        if parameter.required and name not in options:
            yield UserError(f"{key}.{name}: missing; give {key}.{name}=...")


def _target(name: Any, key: str) -> Any:
    check_target_name(name, key)
    module_name, _, class_name = name.rpartition(".")
    try:
        target = getattr(importlib.import_module(module_name), class_name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(
            f"{key}._target_: there is no {name}: {error}{_how_to_find(name)}"
        ) from error
    if not inspect.isclass(target) or getattr(target, "_is_protocol", False):
        words = "a class of this package that can be instantiated"
        raise bad_value(f"{key}._target_", name, words)
    return target


def _how_to_find(name: str) -> str:
    if name.startswith(f"{OWN}."):
        return ""
    return "; what to do: install the package, or set PYTHONPATH to the folder that it is in"


def _parameters(target: Any, key: str, given: int) -> dict[str, Parameter]:
    try:
        hints = typing.get_type_hints(target.__init__)
    except NameError as error:
        allowed = "a class whose arguments are config values"
        raise bad_value(f"{key}._target_", target.__qualname__, allowed) from error
    return {
        name: Parameter(hints[name], parameter.default is inspect.Parameter.empty)
        for name, parameter in list(inspect.signature(target).parameters.items())[given:]
    }


def _with_texts(value: Any, hint: Any) -> Any:
    """Return the value with whole numbers as texts where a text is expected, and all its keys.

    ``labels: [0, 1]`` means the labels '0' and '1'. Other numbers and truth values do not look as
    they were written; they are kept, and refused. A key cannot be quoted on Hydra's command line,
    so it may be any number.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        converted = [_with_texts(value, option) for option in arguments]
        fitting = (new for new, to in zip(converted, arguments, strict=True) if _fits(new, to))
        return value if _fits(value, hint) else next(fitting, value)
    if hint is str and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if origin is list and isinstance(value, list):
        return [_with_texts(item, arguments[0]) for item in value]
    if origin in (dict, Mapping) and isinstance(value, dict):
        return {_as_key(name): _with_texts(item, arguments[1]) for name, item in value.items()}
    return value


def _as_key(name: Any) -> Any:
    is_number = isinstance(name, int | float) and not isinstance(name, bool)
    return str(name) if is_number else name


def _quoting(value: Any, allowed: str) -> str:
    """Return what to do if a word that was meant as text was read as something else."""
    items = [*value, *value.values()] if isinstance(value, dict) else value
    items = items if isinstance(items, list) else [items]
    if "a string" not in allowed or all(isinstance(item, str) for item in items):
        return ""
    return "; what to do: quote a word such as No, on or 1e1 that is meant as text: 'No'"


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is Literal:
        return value in arguments
    if origin is list:
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(
            isinstance(name, str) and _fits(item, arguments[1]) for name, item in value.items()
        )
    if hint in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if hint is float else hint)


def describe(hint: Any) -> str:
    """Return a type in words, such as ``a whole number`` or ``one of paper, reference``."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(option) for option in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is list:
        return f"a list whose items are each {describe(arguments[0])}"
    if origin in (dict, Mapping):
        return f"a mapping whose values are each {describe(arguments[1])}"
    names = {
        Any: "anything",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a string",
    }
    return names.get(hint, "null" if hint is types.NoneType else str(hint))
