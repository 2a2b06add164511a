"""A run's identity: everything that changes its result, and nothing else."""

from __future__ import annotations

import pytest

from lozo_bench.digest import digest

BASE = {
    "model": {"name": "m", "path": "embedded:m", "device": "auto", "device_map": None},
    "task": {"name": "t", "data_dir": None},
    "optimizer": {"lr": 1e-3, "nu": 50},
    "seed": {"value": 0},
    "tracking": {"mode": "offline"},
    "sweep": "default",
    "log_every": 10,
    "rerun": False,
    "steps": 100,
}


def changed(node, **values):
    copy = {key: dict(value) if isinstance(value, dict) else value for key, value in BASE.items()}
    if node:
        copy[node].update(values)
    else:
        copy.update(values)
    return copy


def test_the_digest_is_written_down():
    """Another value would run every finished cell of every user again."""
    assert digest(BASE) == "cf57c066"


@pytest.mark.parametrize(
    "other",
    [
        changed("optimizer", lr=2e-3),
        changed("optimizer", nu=51),
        changed("seed", value=1),
        changed("", steps=101),
        changed("model", path="embedded:other"),
    ],
)
def test_what_changes_the_result_changes_the_digest(other):
    assert digest(other) != digest(BASE)


@pytest.mark.parametrize(
    "other",
    [
        changed("tracking", mode="online"),
        changed("", sweep="table1"),
        changed("", log_every=1),
        changed("", rerun=True),
        changed("model", device="cuda:1"),
        {"hydra": {"x": 1}, **BASE},
        dict(reversed(BASE.items())),
    ],
)
def test_what_does_not_change_the_result_does_not(other):
    assert digest(other) == digest(BASE)


def test_a_directory_counts_by_where_it_is(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name / "data").mkdir(parents=True)
    digests = []
    for name in ("a", "b"):
        monkeypatch.chdir(tmp_path / name)
        digests.append(digest(changed("task", data_dir="data")))
    assert digests[0] != digests[1]
    assert digests[1] == digest(changed("task", data_dir=str(tmp_path / "b" / "data")))
