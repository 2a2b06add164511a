"""The script that looks for leaks."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def leaks(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.setattr(sys, "argv", ["leaks.py"])
    handlers = list(logging.root.handlers)
    import leaks

    yield leaks
    GlobalHydra.instance().clear()
    for handler in set(logging.root.handlers) - set(handlers):
        handler.close()
    logging.root.handlers = handlers


def test_steps_and_cells_are_measured_and_nothing_is_left(leaks, capsys):
    code = leaks.main(["--steps", "4", "--cells", "2", "--allowed-mib", "1000"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 0, lines
    assert [(line["of"], line["at"]) for line in lines if "at" in line] == [
        *(("steps", step) for step in range(1, 5)),
        ("cells", 1),
        ("cells", 2),
    ]
    assert [line["grew"]["leftovers"] for line in lines if "grew" in line] == [0, 0]


def test_what_grows_is_found(leaks, tmp_path):
    temporary, outputs = tmp_path / "tmp", tmp_path / "outputs"
    temporary.mkdir()
    outputs.mkdir()
    samples = leaks.Samples("steps", temporary, outputs, lambda line: None)
    samples.take(1, running=False)
    (outputs / "result.json.partial").touch()
    with tempfile.NamedTemporaryFile(dir=temporary):
        samples.take(2, running=False)
    grew = samples.grew()
    assert (grew["fds"], grew["threads"], grew["leftovers"]) == (1, 0, 2)
