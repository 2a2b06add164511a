"""Words that YAML or Hydra reads as something other than text, where a text is expected.

YAML reads a bare ``No`` as false, ``1e1`` as 10.0 and ``010`` as 8. OmegaConf then turns them into
the texts 'False', '10.0' and '8', so that a model would score other words than those written. The
checks here see what was written. A whole number that is written as Python prints it stays the same
text and is allowed; any other such word must be quoted.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Union

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException
from omegaconf._utils import get_yaml_loader

from lozo_bench.config.schema import Config
from lozo_bench.config.several import single_key
from lozo_bench.config.signature import parameters_of
from lozo_bench.errors import UserError, raise_all

_Word = tuple[yaml.ScalarNode, object]  # as written, and as read
_QUOTED_OR_BARE = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|[^][,\"']+")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_BARE_AFTER_BLANK = re.compile(r"[\[,]\s+[^\s'\]]")
# What Hydra's grammar does not read as text: truth values, null and numbers.
_NOT_TEXT = re.compile(
    r"true|false|null|[+-]?(?:inf|nan|[\d_]+\.?[\d_]*(?:e[+-]?[\d_]+)?|\.[\d_]+(?:e[+-]?[\d_]+)?)",
    re.IGNORECASE,
)


def check_file(where: str, text: str, package: str = "") -> None:
    """Check a YAML file of the config.

    Args:
        where: The file, for error messages.
        text: The contents of the file, which must be valid YAML.
        package: The key of the config at which the file's keys are. Empty means the root.

    Raises:
        UserError: lists every key with such a word; each line names file and line.
    """
    loader = get_yaml_loader()(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return
        found: dict[str, list[_Word]] = {}
        for key, node, may_be_null in _texts(root, type_at(package), package):
            value = loader.construct_object(node)
            if _is_other(value, node.value, key) and not (value is None and may_be_null):
                found.setdefault(key, []).append((node, value))
    finally:
        loader.dispose()
    errors = [_must_be_quoted(where, key, words) for key, words in found.items()]
    if not package:
        swept = _children_at(root, ("hydra", "sweeper", "params"))
        bad = filter(None, (_bad_argument(f"{name.value}={value.value}") for name, value in swept))
        errors += [UserError(f"{where}: hydra.sweeper.params: {error}") for error in bad]
    raise_all(errors)


def check_arguments(arguments: Sequence[str]) -> None:
    """Check the overrides among the arguments of a command.

    Arguments that Hydra cannot read are left to Hydra. Values in ``task.source`` keep their types
    and are checked when the source is built.

    Raises:
        UserError: lists every argument with such a word, and how to write it.
    """
    raise_all(error for argument in arguments if (error := _bad_argument(argument)))


def _bad_argument(argument: str) -> UserError | None:
    name, equals, written = argument.partition("=")
    key = name.lstrip("+")
    options = _options(type_at(key))
    items = [option for option in options if typing.get_origin(option) is list]
    if not equals or not (str in options or (items and typing.get_args(items[0])[0] is str)):
        return None
    try:
        override = OverridesParser.create().parse_override(argument)
        value = override.value() if not override.is_sweep_override() else override._value
    except HydraException:
        return None
    if single_key(key) == "task.options" and _BARE_AFTER_BLANK.search(_QUOTED.sub("''", written)):
        return _lost_blank(argument, name)
    choices = value.list if isinstance(value, ChoiceSweep) else [value]
    bare = [word.strip() for word in _QUOTED_OR_BARE.findall(written)]
    for choice in choices:
        for word in choice if isinstance(choice, list) else [choice]:
            null = word is None and not isinstance(choice, list) and types.NoneType in options
            if not null and _is_other(word, _as_written(word, bare), key):
                return _unquoted(argument, name, written)
    return None


def _lost_blank(argument: str, name: str) -> UserError:
    return UserError(
        f"{argument}: Hydra drops the blank before an option that is not quoted, and most options "
        "begin with one; what to do: quote each option as it is meant, for example "
        f"\"{name}=[' terrible',' great']\""
    )


def _as_written(value: object, bare: Sequence[str]) -> str:
    return str(value) if str(value) in bare else ""


def _unquoted(argument: str, name: str, written: str) -> UserError:
    def quoted(found: re.Match[str]) -> str:
        word = found[0].strip()
        return f"'{word}'" if _NOT_TEXT.fullmatch(word) else found[0]

    return UserError(
        f"{argument}: a bare word in it is read as a truth value or a number, not as text; "
        f'what to do: quote it: "{name}={_QUOTED_OR_BARE.sub(quoted, written)}"'
    )


def _is_other(value: object, written: str, key: str) -> bool:
    """Whether the value at ``key`` is not the text that was written.

    Words of a task are texts for a model. There a truth value or a fraction is never meant as one.
    """
    if isinstance(value, str) or type(value).__name__ == "QuotedString":
        return False
    never = isinstance(value, bool) or (isinstance(value, float) and key.startswith("task."))
    return never or str(value) != written


def _children_at(node: yaml.Node, path: Sequence[str]) -> list[tuple[yaml.Node, yaml.Node]]:
    """Return the children of the mapping at ``path`` below ``node``; none if there is none."""
    children = node.value if isinstance(node, yaml.MappingNode) else []
    if not path:
        return children
    return [
        deeper
        for name, child in children
        if name.value == path[0]
        for deeper in _children_at(child, path[1:])
    ]


def _must_be_quoted(where: str, key: str, words: Sequence[_Word]) -> UserError:
    reading = ", ".join(f"{node.value or 'nothing'} as {_spelled(value)}" for node, value in words)
    quoted = ", ".join(f"'{node.value}'" for node, _ in words)
    return UserError(
        f"{where}:{words[0][0].start_mark.line + 1}: {key}: YAML reads {reading}, not as text; "
        f"what to do: quote {'it' if len(words) == 1 else 'them'}: {quoted}"
    )


def _spelled(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"the number {value}"
    return {None: "null", True: "true", False: "false"}[value]  # type: ignore[index]


def _texts(node: yaml.Node, hint: Any, key: str) -> Iterator[tuple[str, yaml.ScalarNode, bool]]:
    """Yield the scalars at which a text is expected, each with its key and whether null is too."""
    options = _options(hint)
    if isinstance(node, yaml.MappingNode):
        named = _named_types(node, options, key)
        values = [typing.get_args(o)[1] for o in options if typing.get_origin(o) in (dict, Mapping)]
        for name, child in node.value:
            hint = named.get(name.value) if named else next(iter(values), None)
            if not named and hint not in (None, Any):
                yield key, name, False
            yield from _texts(child, hint, f"{key}.{name.value}".lstrip("."))
    elif isinstance(node, yaml.SequenceNode):
        items = [typing.get_args(o)[0] for o in options if typing.get_origin(o) is list]
        for child in node.value if items else ():
            yield from _texts(child, items[0], key)
    elif isinstance(node, yaml.ScalarNode) and node.style is None and _is_text(options):
        yield key, node, types.NoneType in options


def _named_types(node: yaml.MappingNode, options: Sequence[Any], key: str) -> Mapping[str, Any]:
    """Return the types of the children by name; none for a mapping with any names."""
    if single_key(key) == "task.source":
        return _source_types(node)
    dataclass = next(filter(dataclasses.is_dataclass, options), None)
    return {} if dataclass is None else typing.get_type_hints(dataclass)


def _source_types(node: yaml.MappingNode) -> Mapping[str, Any]:
    """Return the types of a source's arguments; none if the file does not name its class."""
    targets = [value.value for name, value in node.value if name.value == "_target_"]
    parameters = parameters_of(targets[0]) if targets else None
    return {name: parameter.hint for name, parameter in (parameters or {}).items()}


def type_at(key: str) -> Any:
    """Return the schema's type at a key; None if the schema does not cover it."""
    hint: Any = Config
    for name in single_key(key).split(".") if key else ():
        hint = typing.get_type_hints(hint).get(name) if dataclasses.is_dataclass(hint) else None
    return hint


def _options(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _is_text(options: Sequence[Any]) -> bool:
    return str in options and not {int, float, bool} & set(filter(_is_plain, options))


def _is_plain(option: Any) -> bool:
    return isinstance(option, type)
