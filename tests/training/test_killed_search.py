"""A search of the layers in turn that is killed in the middle of a turn is continued to the bit."""

from __future__ import annotations

import json
import shutil
import sys

import cells
import pytest

from lozo_bench.engine.tensors import fingerprint
from lozo_bench.optimizers.layer_turns import LayerTurns
from lozo_bench.runs.journal import read
from lozo_bench.training.run import run

TURNS = 12
KILLED = (1, 7, 11)  # before the first checkpoint, between two, and in the last but one turn
SMALL = [
    "model=tiny_roberta", "optimizer.intrinsic_dim=8", "optimizer.popsize=8",
    f"optimizer.budget={TURNS * 8}", "task.source.train=4", "task.source.dev=4",
    "task.source.test=4",
]  # fmt: skip
METHODS = {
    "c_lora": ["method=c_lora"],
    "lotfwa": ["method=f_lora", "optimizer.variant=lotfwa"],  # it asks twice in a turn
}


class Watched:
    """Watches the turns of runs, and copies a run's folder in some of them, between ask and tell.

    The copies are what the disk has if the process is killed there.
    """

    def __init__(self, monkeypatch):
        self.turns, self.now, self.copied = None, 0, None
        make, losses = LayerTurns.make, LayerTurns._losses

        def watched_make(turns, t, score):
            self.turns, self.now = turns, t + 1
            return make(turns, t, score)

        def watched_losses(*arguments):
            if self.copied is not None and self.now in KILLED:
                copy = self.copied.with_name(f"killed in turn {self.now}")
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(self.copied, copy, ignore=shutil.ignore_patterns("lock"))
            return losses(*arguments)

        monkeypatch.setattr(LayerTurns, "make", watched_make)
        monkeypatch.setattr(LayerTurns, "_losses", watched_losses)

    def content(self, folder):
        """Return what must be equal: the result, the records, and what the searches know."""
        result = cells.result(folder)
        steps = read((folder / "journal.bin").read_bytes()).steps
        names = ("metrics", "best_step", "steps", "forwards", "queries", "tokens", "weights")
        return {name: result[name] for name in names} | {
            "rows": cells.rows(folder),
            "events": [json.loads(x) for x in (folder / "events.jsonl").read_text().splitlines()],
            "journal": [[answer.numpy().tobytes() for answer in step] for step in steps],
            "searches": fingerprint(self.turns.state()),
            "z": [z.numpy().tobytes() for z in self.turns.z.values()],
        }


@pytest.mark.parametrize(
    ("method", "kind"), [("c_lora", "log"), ("c_lora", "full"), ("lotfwa", "full")]
)
def test_a_search_killed_between_ask_and_tell_goes_on_bitwise(tmp_path, monkeypatch, method, kind):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # the figure takes longer than the run
    config = cells.config(*METHODS[method], *SMALL, f"checkpoint.kind={kind}")
    watched, folder = Watched(monkeypatch), tmp_path / "straight"
    folder.mkdir()
    watched.copied = folder
    run(config, folder)
    watched.copied = None
    straight = watched.content(folder)
    assert straight["forwards"] == TURNS * 8
    assert len(straight["z"]) == 3
    for turn in KILLED:
        folder = tmp_path / f"killed in turn {turn}"
        assert not (folder / "result.json").exists()
        assert any(folder.glob("checkpoints/*")) == (kind == "full" and turn > 5)
        run(config, folder)
        assert cells.result(folder)["sittings"] == (1 if turn == 1 else 2)
        assert watched.content(folder) == straight
