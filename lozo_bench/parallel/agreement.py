"""Finds out in what the processes of a run differ, before they begin it.

Every process applies the same update to what it holds. If they began with different weights, or
with other rows or settings, nothing would stop them, and the result would be wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lozo_bench.parallel.team import Team

_MISSING = "nothing"


def facts_of_all(team: Team, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the facts that each process of the run states, by rank; they are plain values."""
    if team.wire is None:
        return [dict(facts)]
    return [json.loads(data) for data in team.wire.of_all(json.dumps(dict(facts)).encode())]


def different(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the facts that are not the same in all processes."""
    first = facts[0]
    names = dict.fromkeys(name for each in facts for name in each)
    return [
        name
        for name in names
        if any(each.get(name, _MISSING) != first.get(name, _MISSING) for each in facts[1:])
    ]


def contrast(name: str, facts: Sequence[Mapping[str, Any]]) -> str:
    """Return ``NAME is 1 in process 0 and 2 in process 3``, for the first process that differs."""
    values = [each.get(name, _MISSING) for each in facts]
    other = next(rank for rank, value in enumerate(values) if value != values[0])
    return f"{name} is {values[0]} in process 0 and {values[other]} in process {other}"
