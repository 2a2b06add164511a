"""What sets runs apart although their commands and names do not say it.

A file of the user's, such as that of a task, may have changed between two runs. Then equal commands
made different runs, and a mean of them would be that of neither.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from lozo_bench.runs.apart import as_number
from lozo_bench.runs.hydra_files import HYDRA, read_yaml

# What does not describe what was run: where, how it is recorded and shown, and the seed.
LEFT_OUT = re.compile(
    r"hydra|tracking|table|estimate|sweep|rerun|scale|checkpoint|parallel|plugins|predictions|log_every|eval_batch_size"
    r"|seed|model\.(device|device_map|stand_in)|task\.source\.(seed|draw_note)"
)
_LONGEST = 40  # characters of a value that are shown


def flat(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of a plain config with its full key; an empty mapping is a value."""
    if isinstance(node, Mapping) and node:
        for name, child in node.items():
            yield from flat(child, f"{key}.{name}".lstrip("."))
    else:
        yield key, node


def untold(folders: Sequence[Path], groups: Sequence[Hashable]) -> list[dict[str, str]]:
    """Return for each run the values that set it apart within its group, by key.

    The configs are compared as Hydra wrote them, so that what follows the seed is the same text in
    all of them. A key that one of two configs lacks was added to the package between them.

    Args:
        folders: the folder of each run.
        groups: what the run is called. Runs of one group should differ in their seeds alone.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        members[group].append(number)
    values: dict[int, Mapping[str, str]] = {}
    keys: dict[str, None] = {}
    for numbers in members.values():
        if len(numbers) > 1:
            found = {number: _described(folders[number]) for number in numbers}
            values |= found
            keys |= dict.fromkeys(_needed([each for each in found.values() if each]))
    if not keys:
        return [{} for _ in folders]
    for number, folder in enumerate(folders):
        values.setdefault(number, _described(folder))
    return [
        {key: values[number][key] for key in keys if key in values[number]}
        for number in range(len(folders))
    ]


def _described(folder: Path) -> Mapping[str, str]:
    path = folder / HYDRA / "config.yaml"
    with suppress(OSError):
        return _read(path, path.stat().st_mtime_ns)
    return {}


@lru_cache(maxsize=4096)  # a report that is watched asks again and again
def _read(path: Path, changed: int) -> Mapping[str, str]:
    return {
        key: _short(str(value))
        for key, value in flat(read_yaml(path))
        if not LEFT_OUT.match(key) and not key.endswith("._target_")
    }


def _short(text: str) -> str:
    """Return a value in one line; a long one is cut, and has a hash of the whole of it."""
    line = " ".join(text.split())
    if len(line) <= _LONGEST and line == text:
        return text
    mark = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=2).hexdigest()
    return f"{line[:_LONGEST]} ({mark})"


def _needed(runs: Sequence[Mapping[str, str]]) -> list[str]:
    """Return keys that set runs apart as far as all keys do that have several values."""
    kept: list[str] = []
    for key in dict.fromkeys(key for values in runs for key in values):
        if len({as_number(values[key]) for values in runs if key in values}) < 2:
            continue
        before, after = (
            len({tuple(values.get(one) for one in keys) for values in runs})
            for keys in (kept, [*kept, key])
        )
        if after > before:
            kept.append(key)
    return kept
