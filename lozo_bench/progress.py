"""A progress bar for work outside the trainer; it disappears when the work is done."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")

log = logging.getLogger(__name__)


def progress(examples: Sequence[T], what: str) -> Iterable[T]:
    """Yield the examples one by one, with a progress bar on a terminal."""
    console = Console(stderr=True)
    # Only the first process of a run shows a bar; the others log only warnings.
    silent = not (console.is_terminal and log.isEnabledFor(logging.INFO))
    return track(examples, what, console=console, transient=True, disable=silent)
