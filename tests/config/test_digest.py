"""The digest changes with everything that changes a run's result, and with nothing else."""

from __future__ import annotations

import pytest

from lozo_bench.config.digest import digest, with_paths_from

BASE = {
    "model": {"name": "m", "path": "embedded:m", "device": "auto", "device_map": None},
    "task": {"name": "t", "data_dir": None},
    "optimizer": {"lr": 1e-3, "nu": 50},
    "seed": {"value": 0},
    "tracking": {"mode": "offline"},
    "sweep": "default",
    "log_every": 10,
    "rerun": "missing",
    "steps": 100,
}


def changed(node, **values):
    copy = {key: dict(value) if isinstance(value, dict) else value for key, value in BASE.items()}
    if node:
        copy[node].update(values)
    else:
        copy.update(values)
    return copy


def test_the_digest_of_a_known_config_never_changes():
    """If it changed, every finished cell of every user would run again."""
    assert digest(BASE) == "d2c43647"


@pytest.mark.parametrize(
    "other",
    [
        changed("optimizer", lr=2e-3),
        changed("optimizer", nu=51),
        changed("seed", value=1),
        changed("", steps=101),
        changed("", loss="hinge"),
        changed("model", path="embedded:other"),
    ],
)
def test_a_key_that_changes_the_result_changes_the_digest(other):
    assert digest(other) != digest(BASE)


@pytest.mark.parametrize(
    "other",
    [
        changed("tracking", mode="online"),
        changed("", sweep="table1"),
        changed("", log_every=1),
        changed("", rerun="all"),
        changed("", scale="tiny"),
        changed("", estimate={"enabled": True, "card": "a100", "cards": 2}),
        changed("", loss="cross_entropy", hinge_margin=2.0),
        changed("", allocation={}),
        changed("model", device="cuda:1"),
        {"hydra": {"x": 1}, **BASE},
        dict(reversed(BASE.items())),
    ],
)
def test_a_key_that_cannot_change_the_result_leaves_the_digest_unchanged(other):
    assert digest(other) == digest(BASE)


def test_one_and_one_point_zero_have_the_same_digest():
    assert digest(changed("optimizer", lr=1)) == digest(changed("optimizer", lr=1.0))
    assert digest(changed("optimizer", lr=True)) != digest(changed("optimizer", lr=1))


def test_changed_data_files_change_the_digest(tmp_path):
    (tmp_path / "train.tsv").write_text("fine film\t1\n")
    before = digest(changed("task", data_dir=str(tmp_path)))
    assert digest(changed("task", data_dir=str(tmp_path))) == before
    (tmp_path / "train.tsv").write_text("fine film\t0\n")
    assert digest(changed("task", data_dir=str(tmp_path))) != before


def test_changed_weights_of_an_embedded_model_change_the_digest(tmp_path, monkeypatch):
    monkeypatch.setattr("lozo_bench.config.digest.EMBEDDED", tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.safetensors").write_bytes(b"first")
    before = digest(BASE)
    (tmp_path / "m" / "model.safetensors").write_bytes(b"other")
    assert digest(BASE) != before


def test_a_folder_is_identified_by_its_absolute_path(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name / "data").mkdir(parents=True)
    digests = []
    for name in ("a", "b"):
        monkeypatch.chdir(tmp_path / name)
        digests.append(digest(changed("task", data_dir="data")))
    assert digests[0] != digests[1]
    assert digests[1] == digest(changed("task", data_dir=str(tmp_path / "b" / "data")))


EVALUATION = {
    "shots": 0, "sets": "per_example", "seed": 0, "calibrated": False, "calibrate_shown": False,
}  # fmt: skip


def test_a_config_without_the_group_evaluation_has_the_digest_of_its_default_values():
    assert digest({**BASE, "evaluation": EVALUATION}) == digest(BASE)
    assert digest({**BASE, "evaluation": {**EVALUATION, "shots": 2}}) != digest(BASE)


def test_a_config_without_an_option_that_was_added_has_the_digest_of_its_default_value():
    key = "replicate_first_step"
    assert digest(changed("optimizer", **{key: False})) == digest(BASE)
    assert digest(changed("optimizer", **{key: True})) != digest(BASE)
    assert digest({**BASE, "engine": {"reuse_prefix": True}}) == digest(BASE)
    assert digest({**BASE, "engine": {"reuse_prefix": False}}) != digest(BASE)


def test_runs_without_an_optimizer_have_the_digest_of_the_optimizers_they_were():
    """Finished zero-shot and in-context runs of former versions are still found."""
    zero_shot = {"_target_": "lozo_bench.optimizers.zero_shot.ZeroShot", "calibrated": False}
    now = {**BASE, "optimizer": {}, "evaluation": EVALUATION}
    assert digest(now) == digest({**BASE, "optimizer": zero_shot})
    icl = {
        "_target_": "lozo_bench.optimizers.icl.InContext", "demonstrations": 4, "sets": "fixed",
        "seed": 1, "calibrated": True, "calibrate_shown": False,
    }  # fmt: skip
    shots = {**EVALUATION, "shots": 4, "sets": "fixed", "seed": 1, "calibrated": True}
    assert digest({**now, "evaluation": shots}) == digest({**BASE, "optimizer": icl})


def test_a_relative_folder_is_that_of_the_command_wherever_it_is_read(tmp_path, monkeypatch):
    (tmp_path / "rows").mkdir()
    config = {
        "task": {"data_dir": "rows", "source": {"data_dir": "rows"}},
        "model": {"path": "x/y"},
    }
    monkeypatch.chdir(tmp_path)
    before = digest(config)
    monkeypatch.chdir("/")
    moved = with_paths_from(config, tmp_path)
    assert digest(moved) == before
    assert moved["task"]["data_dir"] == str(tmp_path / "rows")
    assert moved["model"]["path"] == "x/y"  # a name on the hub
