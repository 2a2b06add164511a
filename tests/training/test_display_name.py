"""The name of a run in wandb tells runs of a sweep apart."""

from __future__ import annotations

import json
from types import SimpleNamespace

from lozo_bench.training.session import _display_name


def test_the_name_says_what_was_set_and_is_not_in_the_folders_name(tmp_path):
    given = ["task=reviews", "optimizer.lr=0.001", "steps=60", "seed=s0", "tracking.mode=offline"]
    hydra = {"hydra": {"overrides": {"task": given}}}
    folder = tmp_path / "lozo-r2-s0-1cd946a1"
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "hydra.yaml").write_text(json.dumps(hydra))
    names = SimpleNamespace(
        task=SimpleNamespace(name="reviews"), model=SimpleNamespace(name="tiny_opt")
    )
    name = _display_name(SimpleNamespace(config=names, folder=folder))
    assert name == "reviews-tiny_opt-lozo-r2-s0-1cd946a1 lr=1e-3 steps=60"
