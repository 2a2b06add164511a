"""A bar beside work that has nobody to tell: it is there on a terminal and gone when it is done."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")

log = logging.getLogger(__name__)


def progress(examples: Sequence[T], what: str) -> Iterable[T]:
    """The same examples, one after another, while a bar says how far they are."""
    console = Console(stderr=True)
    # Of several processes only one may tell how it goes.
    silent = not (console.is_terminal and log.isEnabledFor(logging.INFO))
    return track(examples, what, console=console, transient=True, disable=silent)
