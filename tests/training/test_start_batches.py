"""A tuning that looks at training rows first does so in each attempt, and gets the same bits."""

from __future__ import annotations

import json

import pytest

from lozo_bench.errors import UserError
from lozo_bench.runs.blocks import read_header
from lozo_bench.training.replay import rebuild
from lozo_bench.training.start_batches import check_start

SMALL = (
    "steps=3", "eval_every=3", "batch_size=4", "task.source.train=12", "task.source.dev=4",
    "task.source.test=4", "model.device=cpu", "tracking=files",
)  # fmt: skip


@pytest.mark.parametrize(("tuning", "optimizer"), [("eva", "mezo"), ("sparse", "adamw")])
def test_a_run_continues_and_is_replayed_with_the_bits_of_its_start(
    tuning, optimizer, tmp_path, command
):
    folder = tmp_path / "run"
    choices = (f"tuning={tuning}", f"optimizer={optimizer}", f"hydra.run.dir={folder}", *SMALL)
    found = []
    for _ in range(2):
        code, _, err = command(*choices)
        assert code == 0, err
        found.append(json.loads((folder / "result.json").read_text())["weights"])
        (folder / "result.json").unlink()
    assert found[0] == found[1]
    assert len(read_header((folder / "journal.bin").read_bytes())["start"]) == 32
    assert rebuild(folder, 3).weights == found[0]["last"]


def test_a_start_with_other_bits_is_refused_in_one_line():
    header = {"start": "abc", "device": "an H100"}
    check_start({}, "abc")
    check_start(header, "abc")
    with pytest.raises(
        UserError, match=r"^tuning: .*abd instead of abc, on an H100.*what to do: co"
    ):
        check_start(header, "abd")
