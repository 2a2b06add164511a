"""Build the object that a config node names, and check its arguments before anything is loaded.

``_target_`` is the only registry: a new optimizer or task source is one class and one YAML file.
The signature of the class is the schema of the node.
"""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union

from lozo_bench.errors import BadValueError, UserError, bad_value, did_you_mean


def build(node: Mapping[str, Any], key: str, *parts: Any) -> Any:
    """Return ``node['_target_'](*parts, **the other keys)``.

    Args:
        node: a plain mapping; its ``_target_`` is the full name of a class of this package.
        key: the full key of the node in the config, for error messages.
        parts: positional arguments that do not come from the config.

    Raises:
        UserError: the target is not one of this package's classes, or a key is unknown, missing,
            of the wrong type or out of range.
    """
    target = _target(node.get("_target_"), key)
    options = {name: value for name, value in node.items() if name != "_target_"}
    _check_options(target, options, key, given=len(parts))
    try:
        return target(*parts, **options)
    except BadValueError as error:
        raise error.under(key) from error


def _target(name: object, key: str) -> Any:
    if not isinstance(name, str) or not name.startswith("lozo_bench."):
        raise bad_value(f"{key}._target_", name, "a class of this package: lozo_bench.MODULE.Class")
    module_name, _, class_name = name.rpartition(".")
    try:
        target = getattr(importlib.import_module(module_name), class_name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(f"{key}._target_: there is no {name}: {error}") from error
    if not inspect.isclass(target) or getattr(target, "_is_protocol", False):
        raise bad_value(f"{key}._target_", name, "a class of this package that can be instantiated")
    return target


def _check_options(target: Any, options: Mapping[str, Any], key: str, given: int) -> None:
    try:
        hints = typing.get_type_hints(target.__init__)
    except NameError as error:
        allowed = "a class whose arguments are config values"
        raise bad_value(f"{key}._target_", target.__qualname__, allowed) from error
    parameters = dict(list(inspect.signature(target).parameters.items())[given:])
    for name, value in options.items():
        if name not in parameters:
            hint = did_you_mean(name, parameters)
            raise UserError(f"{key}.{name}: no such key{hint}; it takes {', '.join(parameters)}")
        if not _fits(value, hints[name]):
            raise bad_value(f"{key}.{name}", value, describe(hints[name]))
    for name, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in options:
            raise UserError(f"{key}.{name}: missing; give {key}.{name}=...")


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
        return isinstance(value, dict) and all(_fits(v, arguments[1]) for v in value.values())
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
