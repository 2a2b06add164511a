"""A method that knows its number of steps only once it has its weights."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from lozo_bench.optimizers.base import Needs
from lozo_bench.optimizers.mezo import Mezo
from lozo_bench.runs.blocks import read_header
from lozo_bench.runs.status import status_of

SHORT = ["task.source.train=20", "task.source.dev=8", "task.source.test=8", "tracking=files"]


def test_the_run_its_result_and_its_status_have_that_number(command, monkeypatch):
    original = Mezo.__init__

    @functools.wraps(original)
    def known_late(self, engine, draws, **options):
        original(self, engine, draws, **options)
        self.needs = Needs("full_rank", steps=3 if engine.X else None)

    monkeypatch.setattr(Mezo, "__init__", known_late)
    code, _, err = command("optimizer=mezo", "steps=9", "eval_every=2", *SHORT)
    assert code == 0, err
    (folder,) = (path.parent for path in Path("outputs").rglob("result.json"))
    result = json.loads((folder / "result.json").read_text())
    assert (result["steps"], result["forwards"]) == (3, 6)
    assert "3 steps of" in err
    assert read_header((folder / "journal.bin").read_bytes())["steps"] == 3
    (folder / "result.json").unlink()
    assert status_of(folder).note.endswith(" of 3")
