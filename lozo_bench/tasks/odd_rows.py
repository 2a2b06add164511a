"""A warning for rows of published data that are read although they are damaged."""

from __future__ import annotations

import logging
from collections.abc import Sequence

log = logging.getLogger(__name__)
_NAMED = 4  # how many rows a warning names


def warn_of(places: Sequence[str], what: str) -> None:
    """Log one line that names the first of the rows at ``places``; do nothing if there are none."""
    if not places:
        return
    others = places[1:_NAMED]
    if len(places) > _NAMED:
        others = [*others, f"and {len(places) - _NAMED} more"]
    likewise = f" (likewise {', '.join(others)})" if others else ""
    log.warning("%s: %s%s", places[0], what, likewise)
