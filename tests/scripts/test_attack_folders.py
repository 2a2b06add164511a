"""attack_folders.py: no damage that it tries leads to a wrong result, and it would notice one."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from unittest import mock

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import attack_folders  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging, "disable", lambda level: None)
        attack_folders.prepare_process()
    before = signal.signal(signal.SIGALRM, attack_folders._hang)
    folder = tmp_path_factory.mktemp("attack") / "model"
    attack_folders.make_model(folder)
    yield folder
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("case", attack_folders.CASES[3:5], ids=str)
def test_a_sample_of_damages_leads_to_no_wrong_result(model, tmp_path, case):
    counts, examples = attack_folders.attack_case(case, model, tmp_path / "run", 1499, "")
    assert examples == {}
    assert sum(counts.values()) > 60
    assert {verdict for _, _, verdict in counts} <= {"unread", "right", "again", "told"}


def test_a_wrong_result_is_noticed(model, tmp_path):
    """Without its checksum, a checkpoint is believed whose best step was changed."""
    attack = attack_folders.Attack(attack_folders.CASES[3], model, tmp_path / "run")
    name = "checkpoints/step-00000003.json"
    changed = attack.template[name].replace(b'"best": {"step": 2', b'"best": {"step": 1')
    damage = attack_folders.Damage(name, changed)
    assert changed != attack.template[name]
    assert attack.trial(damage)[0] == "right"
    with mock.patch("lozo_bench.runs.checkpoints.is_intact", return_value=True):
        assert attack.trial(damage)[0] == "WRONG"
