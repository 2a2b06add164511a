"""The packages whose classes a config may name: this one, and those that the user allows.

A ``_target_`` names code that is imported and run, and configs are copied from colleagues and
papers. So a class from elsewhere must be allowed by name: with ``plugins: [my_package]`` in the
config, or with LOZO_PLUGINS=my_package,other_package in the environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from lozo_bench.errors import bad_value

OWN = "lozo_bench"
ENVIRONMENT = "LOZO_PLUGINS"


def allow(packages: Iterable[str]) -> None:
    """Allow classes of these packages in this process and in the processes that it starts.

    Args:
        packages: top-level names, such as ``my_package``.

    Raises:
        UserError: a name is not that of a top-level package.
    """
    names = list(packages)
    for name in names:
        if not name.isidentifier():
            raise bad_value("plugins", name, "the name of a package, such as my_package")
    if new := [name for name in names if name not in allowed()]:
        before = os.environ.get(ENVIRONMENT, "")
        os.environ[ENVIRONMENT] = ",".join(filter(None, [before, *new]))


def allowed() -> list[str]:
    """Return the top-level names of the packages whose classes a config may name."""
    others = os.environ.get(ENVIRONMENT, "").split(",")
    return [OWN, *(name for text in others if (name := text.strip()))]


def check_target_name(name: object, key: str) -> None:
    """Refuse a ``_target_`` that is not in an allowed package.

    Args:
        name: the value of ``_target_``.
        key: the key of its node in the config.

    Raises:
        UserError: it is not.
    """
    package, _, rest = name.partition(".") if isinstance(name, str) else ("", "", "")
    if package in allowed() and rest:
        return
    words = "a class of this package: lozo_bench.MODULE.Class"
    if package.isidentifier() and rest:
        words += f"; what to do: a class of your own needs 'plugins=[{package}]'"
    raise bad_value(f"{key}._target_", name, words)
