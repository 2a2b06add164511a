"""Turn errors of Hydra and OmegaConf into one line that says what to type instead.

The line names the key, the given value and the allowed values. Errors that do not come from a
mistake in the command or in a YAML file are bugs: they are not explained and keep their traceback.
"""

from __future__ import annotations

import dataclasses
import errno
import re
import typing
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

import yaml
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from lozo_bench.config.build import describe
from lozo_bench.config.quoting import ambiguous, unreadable
from lozo_bench.config.schema import Config
from lozo_bench.config.secrets import mask
from lozo_bench.config.several import single_key
from lozo_bench.errors import UserError, bad_value, did_you_mean

_GROUPS = (
    "model", "task", "optimizer", "tuning", "allocation", "rank", "seed", "tracking", "method",
    "variant", "experiment", "grid", "scale",
)  # fmt: skip
_OPEN_NODES = ("optimizer", "tuning", "allocation", "task.source")


def explain(error: BaseException, arguments: Sequence[str]) -> str | None:
    """Return the message for a mistake in the command or the config.

    Args:
        error: any exception.
        arguments: the command-line arguments.

    Returns:
        One line for each mistake, without access tokens; None if the exception is not a mistake
        of the user.
    """
    line = _explained(error, arguments)
    return None if line is None else mask(line)


def _explained(error: BaseException, arguments: Sequence[str]) -> str | None:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if isinstance(error, OverrideParseException):
        return unreadable(error.override, str(error.args[0]))
    if isinstance(error, ConfigCompositionException):
        return _composition(error, arguments)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}: missing; give {error.full_key}=..."
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        return _unknown_key(error.full_key or "", error)
    if isinstance(error, OmegaConfBaseException):
        if found := re.search("UserError raised while resolving interpolation: (.*)", str(error)):
            return found[1]  # one of this package's resolvers refused a value
        return _line(f"{error.full_key}: {error}" if error.full_key else str(error))
    if isinstance(error, HydraException):
        return _line(str(error))
    if isinstance(error, yaml.YAMLError | UnicodeDecodeError):
        return _line(f"a YAML file of the config cannot be read: {error}")
    if isinstance(error, ValueError) and isinstance(error.__cause__, OSError):
        error = error.__cause__  # logging cannot open its file in the run's folder
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}; {_remedy(error)}"
    if isinstance(error, ValueError) and "Config group override must be a string" in str(error):
        return _number_as_option(arguments)
    if isinstance(error, RuntimeError) and re.match("(Invalid|Unknown) plugin", str(error)):
        return f"{_line(str(error))}; lozo-train --info plugins lists the launchers and sweepers"
    if isinstance(error, ValueError) and str(error).startswith("Only one of --run"):
        return f"{error}; omit -m to see the config of one run"
    return None


def _remedy(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "make it writable, or choose another place with hydra.run.dir or hydra.sweep.dir"
    if error.errno == errno.EISDIR:
        return "a file of this name is written here; move the folder away"
    return "free some space or choose another path"


def _composition(error: ConfigCompositionException, arguments: Sequence[str]) -> str:
    text, cause = str(error), error.__cause__
    if (found := re.match(r"Error merging override \+*([^=]+)=(.*)", text, re.DOTALL)) and (
        isinstance(cause, ValidationError)
    ):
        return str(bad_value(found[1], found[2], _allowed(found[1]) or _line(str(cause))))
    if found := re.match(r"Ambiguous value for argument '(.*?)'\n1\.", text, re.DOTALL):
        return ambiguous(found[1])
    if found := re.match(r"Sweep parameters '(.*)' requires --multirun", text, re.DOTALL):
        return f"{found[1]}: this is a sweep; what to do: add -m"
    if (found := re.match(r"Could not override '([^']+)'", text)) and isinstance(
        cause, OmegaConfBaseException
    ):
        return (
            _key_of_swept(found[1], arguments)
            or _key_of_one_task(found[1], arguments)
            or _unknown_key(found[1], cause)
        )
    return _line(f"{text} {cause or ''}")


def _key_of_swept(key: str, arguments: Sequence[str]) -> str:
    """Return the line about a key that the default option lacks, in a sweep over options, or ""."""
    group = key.partition(".")[0]
    choices = [text for text in arguments if re.match(rf"(method|{group})=[^\[]*,", text)]
    given = next((text for text in arguments if text.startswith(f"{key}=")), None)
    if group not in _OPEN_NODES or not choices or given is None:
        return ""
    return (
        f"{key}: the default {group} has no such key; if the options of {choices[0]} have it, what "
        f"to do: ++{given}"
    )


def _key_of_one_task(key: str, arguments: Sequence[str]) -> str:
    """Return the line about a key that each task of a list has for itself, or ""."""
    found = (re.match(r"\+?task@task\.tasks\.([^=]+)=", text) for text in arguments)
    first = next(filter(None, found), None)
    if first is None or not key.startswith("task.") or key.startswith("task.tasks."):
        return ""
    return (
        f"{key}: several tasks have no such key; what to do: give it to each task: "
        f"task.tasks.{first[1]}.{key.removeprefix('task.')}=..."
    )


def _unknown_key(key: str, cause: OmegaConfBaseException) -> str:
    node, _, name = key.rpartition(".")
    try:
        known = [str(child) for child in cause.parent_node or () if child != "hydra"]
    except TypeError:
        known = []
    if known and key.startswith("task.tasks.") and (task := key.split(".")[2]) not in known:
        hint = did_you_mean(task, known)
        return f"{key}: there is no task {task}{hint}; the run has: {', '.join(known)}"
    where = f"{node} has" if node else "there are"
    listed = f"; {where}: {', '.join(known)}" if known else ""
    # A class may take an option that its YAML file does not list; Hydra accepts it only with a +.
    append = (
        "; put + before a key that the YAML file does not list, and ++ before one that only swept "
        "options have"
        if single_key(node) in _OPEN_NODES
        else ""
    )
    children = _children_with(cause.parent_node, name)
    deeper = [f"{node}.{child}.{name}".lstrip(".") for child in children]
    hint = f" (did you mean {' or '.join(deeper)}?)" if deeper else did_you_mean(name, known)
    return f"{key}: no such key{hint}{listed}{append}"


def _children_with(node: Any, name: str) -> list[str]:
    """Return the names of the children of ``node`` that have a key ``name``."""
    if not isinstance(node, DictConfig):
        return []
    children = {key: node._get_node(key) for key in node if key != "hydra"}
    return [
        str(key)
        for key, child in children.items()
        if isinstance(child, DictConfig) and not child._is_missing() and name in child
    ]


def _missing_option(error: MissingConfigException) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        return _line(str(error))
    options: Iterable[str] = error.options or ()
    number = re.fullmatch(r"[rs](\d+)", option) if group in ("rank", "seed") else None
    other = f"; what to do: {group}.value={number[1]}" if number else ""
    return str(
        UserError(
            f"{group}={option}: no such option{did_you_mean(option, options)}; "
            f"there are: {', '.join(options)}{other}"
        )
    )


def _number_as_option(arguments: Sequence[str]) -> str:
    for argument in arguments:
        group, _, value = argument.partition("=")
        if value.isdecimal() and group in ("rank", "seed"):
            return (
                f"{argument}: the options of a group are names, not numbers; "
                f"{group}.value={value} sets any number"
            )
        if group in _GROUPS and (value == "null" or not re.search("[A-Za-z]", value)):
            return f"{argument}: no such option; lozo-train --help {group} lists the options"
    return "the option of a group must be a name; lozo-train --help GROUP lists the options"


def _allowed(key: str) -> str | None:
    """Return in words what the schema allows at ``key``; None if the schema does not cover it."""
    hint: Any = Config
    for name in single_key(key).split("."):
        if not dataclasses.is_dataclass(hint):
            return None
        hint = typing.get_type_hints(hint).get(name)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return f"one of {', '.join(option.name for option in hint)}"
    return describe(hint)


def _line(text: str) -> str:
    """Return the text as one line, without OmegaConf's internals and Hydra's links."""
    kept = re.split(r"\n\s*(?:full_key|reference_type|See https)\b", text)[0]
    kept = kept.replace("ValueError raised while resolving interpolation: ", "")
    return " ".join(kept.split())
