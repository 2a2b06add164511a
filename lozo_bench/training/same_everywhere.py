"""Refuses a run whose processes were given different settings, rows or weights."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lozo_bench.config.several import single_key
from lozo_bench.data.sets import Data
from lozo_bench.engine.tensors import fingerprint
from lozo_bench.errors import UserError
from lozo_bench.parallel.agreement import contrast, different, facts_of_all
from lozo_bench.parallel.team import Team
from lozo_bench.runs.provenance import versions
from lozo_bench.runs.untold import flat
from lozo_bench.tasks.base import Encoded

log = logging.getLogger(__name__)

# What may differ: where a process runs and what it shows. Files may lie at other paths, because
# what was read from them is compared.
_MAY_DIFFER = {
    "tracking", "table", "estimate", "sweep", "hydra", "rerun", "log_every",
    "model.device", "model.device_map", "model.path", "model.adapter",
    "task.data_dir", "task.source.data_dir", "task.source.full_dir",
}  # fmt: skip
_NAMED = 5  # so many differences are named
_PACKAGE = "package "


def require_same_config(team: Team, config: Mapping[str, Any]) -> None:
    """Compare the config and the package versions of all processes.

    Raises:
        UserError: their configs differ in something that changes the result.
    """
    if team.size == 1:
        return
    settings = {key: value for key, value in flat(config) if not _may_differ(key)}
    packages = {f"{_PACKAGE}{name}": version for name, version in versions().items()}
    facts = facts_of_all(team, settings | packages)
    found = different(facts)
    keys = [name for name in found if not name.startswith(_PACKAGE)]
    if keys:
        raise _refused([contrast(key, facts) for key in keys])
    if team.rank == 0:
        for name in found:
            log.warning(
                "the numbers may differ by more than rounding: %s",
                contrast(name, facts).removeprefix(_PACKAGE),
            )


def require_same_parts(team: Team, data: Data, model: nn.Module) -> None:
    """Compare the rows as tokens and all weights of all processes.

    Raises:
        UserError: they differ.
    """
    if team.size == 1:
        return
    weights = {name: x for name, x in model.state_dict().items() if isinstance(x, Tensor)}
    facts = facts_of_all(
        team,
        {
            "data: train rows": _hash_of(data.train),
            "data: dev rows": _hash_of(data.dev),
            "data: test rows": _hash_of(data.test),
            "data: label words": list(data.layout.label_ids),
            "model: weights": fingerprint(weights),
        },
    )
    if found := different(facts):
        raise _refused([f"{name} differ" for name in found])


def _may_differ(key: str) -> bool:
    parts = single_key(key).split(".")
    return any(".".join(parts[: i + 1]) in _MAY_DIFFER for i in range(len(parts)))


def _refused(differences: Sequence[str]) -> UserError:
    more = len(differences) - _NAMED
    named = [*differences[:_NAMED], *([f"{more} more"] if more > 0 else [])]
    return UserError(
        f"the processes of this run are not alike: {'; '.join(named)}; start all of them with the "
        "same command, data and model"
    )


def _hash_of(rows: Iterable[Encoded]) -> str:
    """Return a hash of rows as tokens, in their order."""
    hasher = hashlib.blake2b(digest_size=16)
    for row in rows:
        hasher.update(json.dumps(_plain(row)).encode())
    return hasher.hexdigest()


def _plain(row: Encoded) -> list[Any]:
    before = None if row.calibration is None else _plain(row.calibration)
    return [row.rows, row.answer, row.label, row.golds, row.prompt, row.answers, before]
