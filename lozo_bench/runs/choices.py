"""The choices of runs, by key: from their commands, their configs, and what neither says."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lozo_bench.errors import UserError
from lozo_bench.runs.apart import SEEDS, as_number
from lozo_bench.runs.blocks import header_of
from lozo_bench.runs.hydra_files import HYDRA, files_chosen, own_choices, read_yaml
from lozo_bench.runs.result_file import load_result
from lozo_bench.runs.untold import untold


def choices_of(folders: Sequence[Path]) -> list[dict[str, str]]:
    """Return the choices of each run, by key.

    A key that another run's command gives, and a run's own command does not, has the value of the
    run's config. Runs whose configs or data differ although their choices do not have further keys.
    """
    given = [own_choices(folder) for folder in folders]
    keys = list(dict.fromkeys(key for choices in given for key in choices))
    choices = [
        own if len(own) == len(keys) else _completed(folder, own, keys)
        for folder, own in zip(folders, given, strict=True)
    ]
    groups = [_compared(own, besides=SEEDS) for own in choices]
    more = untold(folders, groups)
    return _with_digests(folders, [o | m for o, m in zip(choices, more, strict=True)])


def _with_digests(
    folders: Sequence[Path], choices: Sequence[dict[str, str]]
) -> list[dict[str, str]]:
    """Add the digest to runs of which two have equal choices and seeds, but another digest.

    They were made of other data. The digest differs by the seed too, so that these runs are in no
    mean: which of them have the same data is not known.
    """
    times = Counter(map(_compared, choices))
    found: dict[frozenset[Any], set[str]] = defaultdict(set)
    for folder, own in zip(folders, choices, strict=True):
        if times[_compared(own)] > 1 and (digest := digest_of(folder)):
            found[_compared(own)].add(digest)
    mixed = {
        _compared(own, besides=SEEDS) for own in choices if len(found.get(_compared(own), ())) > 1
    }
    return [
        own | {"digest": digest_of(folder)} if _compared(own, besides=SEEDS) in mixed else own
        for folder, own in zip(folders, choices, strict=True)
    ]


def _compared(choices: Mapping[str, str], besides: Sequence[str] = ()) -> frozenset[Any]:
    return frozenset(
        (key, as_number(value)) for key, value in choices.items() if key not in besides
    )


def digest_of(folder: Path) -> str:
    """Return the digest of a run; empty if it has neither a result nor a journal."""
    return str(_record(folder).get("digest", ""))


def _record(folder: Path) -> Mapping[str, Any]:
    """Return a run's result; without one that can be read, the header of its journal."""
    with suppress(UserError, OSError):
        if (result := load_result(folder)) is not None:
            return result
    with suppress(UserError, OSError, ValueError):
        return header_of(folder)
    return {}


def _completed(folder: Path, given: Mapping[str, str], keys: Sequence[str]) -> dict[str, str]:
    options = files_chosen(folder)
    config = _record(folder).get("config") or read_yaml(folder / HYDRA / "config.yaml")
    completed = {key: given.get(key, _value(key, options, config)) for key in keys}
    return {key: value for key, value in completed.items() if value is not None}


def _value(key: str, options: Mapping[str, str], config: Mapping[str, Any]) -> str | None:
    """Return the option of a group or the value of a key; None if neither has one."""
    if key in options:
        return options[key]
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, bool):
        return str(value).lower()  # as it is typed
    return None if value is None or isinstance(value, Mapping) else str(value)
