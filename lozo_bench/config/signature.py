"""Reads which options a class takes from its source, without importing it.

The import of an optimizer or a tuning imports torch, which takes seconds. What cannot be understood
here counts as allowed: `build` checks it again when the class is there.
"""

from __future__ import annotations

import ast
import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union

from lozo_bench.config.build import Parameter, option_errors, options_of
from lozo_bench.config.paths import PACKAGE
from lozo_bench.config.plugins import OWN, check_target_name
from lozo_bench.errors import UserError

_PLAIN = {"int": int, "float": float, "bool": bool, "str": str, "list": list, "dict": dict}
# Bases that add nothing to a constructor.
_EMPTY_BASES = {"object", "Generic", "ABC"}


def errors_in_node(node: Mapping[str, Any], key: str, given: int = 0) -> Iterator[UserError]:
    """Yield what is wrong with the names and types of a node's options.

    Args:
        node: a plain mapping with the key ``_target_``.
        key: the full key of the node in the config.
        given: the number of the constructor's arguments that do not come from the config.
    """
    name = node.get("_target_")
    try:
        check_target_name(name, key)
    except UserError as error:
        yield error
        return
    parameters = parameters_of(str(name), given)
    if parameters is not None:
        yield from option_errors(parameters, options_of(node, parameters), key)


def parameters_of(target: str, given: int = 0) -> dict[str, Parameter] | None:
    """Return the parameters of a class's constructor; None if its source does not show them.

    Args:
        target: the full name of the class.
        given: how many of the first parameters are left out.
    """
    module, _, name = target.rpartition(".")
    found = _find(module, name)
    if found is None:
        return None
    where, definition = found
    constructor = _constructor(where, definition)
    if constructor is None:
        return None
    return dict(list(constructor.items())[given:])


@functools.cache
def _definitions(module: str) -> Mapping[str, ast.stmt]:
    """Return what a module of this package defines or imports by name; nothing for others."""
    package, *rooms = module.split(".")
    path = PACKAGE.joinpath(*rooms).with_suffix(".py")
    if package != OWN or not path.is_file():
        return {}
    defined: dict[str, ast.stmt] = {}
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        match statement:
            case ast.ClassDef(name=name):
                defined[name] = statement
            case ast.Assign(targets=[ast.Name(id=name)]):
                defined[name] = statement
            case ast.ImportFrom(names=names):
                defined |= {alias.asname or alias.name: statement for alias in names}
    return defined


def _find(module: str, name: str) -> tuple[str, ast.stmt] | None:
    """Return the class or the alias of this name and its module, following imports."""
    statement = _definitions(module).get(name)
    if not isinstance(statement, ast.ImportFrom):
        return None if statement is None else (module, statement)
    source = statement.module or ""
    if not source.startswith("lozo_bench.") or statement.level:
        return None
    names = {alias.asname or alias.name: alias.name for alias in statement.names}
    return _find(source, names[name])


def _constructor(module: str, definition: ast.stmt) -> dict[str, Parameter] | None:
    if not isinstance(definition, ast.ClassDef) or definition.decorator_list:
        return None  # a dataclass: its fields are its parameters
    for statement in definition.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return _parameters(module, statement.args)
    for base in definition.bases:
        if not isinstance(base, ast.Name):
            return None
        if base.id in _EMPTY_BASES:
            continue
        found = _find(module, base.id)
        return None if found is None else _constructor(*found)
    return {}


def _parameters(module: str, arguments: ast.arguments) -> dict[str, Parameter] | None:
    if arguments.vararg or arguments.kwarg:
        return None
    placed = [*arguments.posonlyargs, *arguments.args]
    required = len(placed) - len(arguments.defaults)
    found = {
        argument.arg: Parameter(_hint(module, argument.annotation), number < required)
        for number, argument in enumerate(placed)
    }
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found[argument.arg] = Parameter(_hint(module, argument.annotation), default is None)
    del found[placed[0].arg]  # self
    return found


def _hint(module: str, node: ast.expr | None) -> Any:
    """Return the type that an annotation names; Any if it is not one of a config value."""
    match node:
        case ast.Constant(value=None):
            return types.NoneType
        case ast.Name(id=name):
            return _PLAIN.get(name) or _alias(module, name)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Union[_hint(module, left), _hint(module, right)]  # noqa: UP007  # of values
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            words = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            values = tuple(word.value for word in words if isinstance(word, ast.Constant))
            return Literal[values] if len(values) == len(words) else Any
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            return types.GenericAlias(list, (_hint(module, inner),))
        case ast.Subscript(
            value=ast.Name(id="dict" | "Mapping"), slice=ast.Tuple(elts=[key, value])
        ):
            return types.GenericAlias(dict, (_hint(module, key), _hint(module, value)))
    return Any


def _alias(module: str, name: str) -> Any:
    found = _find(module, name)
    if found is None or not isinstance(found[1], ast.Assign):
        return Any
    return _hint(found[0], found[1].value)
