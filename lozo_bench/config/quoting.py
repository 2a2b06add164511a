"""Says how to write a value that Hydra's grammar does not take as it was typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from lozo_bench.config.paths import CONF

_KEY = re.compile(r"[+~]{0,2}[\w./@:-]+")


def unreadable(override: str, reason: str) -> str:
    """Return the error line for an override that Hydra cannot read, with what to type instead.

    Args:
        override: the argument.
        reason: the message of Hydra's parser.
    """
    short = re.split(r" expecting |\n", reason)[0]
    return f"cannot read the override {override!r} ({short}); what to do: {_advice(override)}"


def ambiguous(override: str) -> str:
    """Return the error line for a value with commas in a command without ``-m``."""
    key, _, value = override.partition("=")
    if (CONF / key).is_dir():
        return f"{override}: several options are a sweep; what to do: add -m to run each of them"
    text, listed = (shlex.quote(f"{key}={form}") for form in (quoted(value), f"[{value}]"))
    return (
        f"{override}: several values are a sweep; what to do: add -m to run each of them, "
        f"type {text} for a text with a comma, or {listed} for a list"
    )


def _advice(override: str) -> str:
    key, equals, value = override.partition("=")
    if not _KEY.fullmatch(key):
        return "an argument is KEY=VALUE, without spaces around the ="
    if not equals:
        return f"an argument is KEY=VALUE; give {override}=..."
    if "\n" in value:
        return "put a value of several lines into a YAML file"
    if value.startswith("[") and not value.endswith("]"):
        return "close the list with ]"
    for form, meant in _forms(value):
        written = f"{key}={form}"
        if (read := _read(written)) is not None and (meant is None or read.value() == meant):
            return f"type {shlex.quote(written)}"
    return "put quotes around the value, for Hydra and again for the shell"


def _forms(value: str) -> Iterator[tuple[str, object]]:
    """Yield ways to write a value, each with what it must be read as; None: anything."""
    if (without := value.strip(", ")) != value.strip():
        yield without, None
    if value.startswith("[") and value.endswith("]"):
        items = [_as_typed(item.strip()) for item in value[1:-1].split(",")]
        yield f"[{','.join(map(quoted, items))}]", items
    yield quoted(value), value


def quoted(text: str) -> str:
    """Return a text as Hydra's grammar reads it as that text."""
    return QuotedString(text=text, quote=Quote.double).with_quotes()


def _as_typed(item: str) -> str:
    """Return an item of a list without the quotes around it."""
    return item[1:-1] if re.fullmatch("'[^']*'|\"[^\"]*\"", item) else item


def _read(override: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None
