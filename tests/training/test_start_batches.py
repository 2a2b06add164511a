"""A tuning that looks at training rows first does so in each attempt, and gets the same bits."""

from __future__ import annotations

import cells
import pytest

from lozo_bench.errors import UserError
from lozo_bench.runs.blocks import read_header
from lozo_bench.training.replay import rebuild
from lozo_bench.training.start_batches import check_start

SMALL = ("steps=4", "eval_every=2", "batch_size=4")


@pytest.mark.parametrize(("tuning", "optimizer"), [("eva", "mezo"), ("sparse", "adamw")])
def test_a_run_continues_and_is_replayed_with_the_bits_of_its_start(tuning, optimizer, tmp_path):
    options = (f"tuning={tuning}", f"optimizer={optimizer}", *SMALL)
    assert cells.run(tmp_path, *options) == [0], cells.log(tmp_path)
    first = cells.result(tmp_path)
    header = read_header((tmp_path / "journal.bin").read_bytes())
    assert len(header["start"]) == 32
    (tmp_path / "result.json").unlink()
    assert cells.run(tmp_path, *options) == [0], cells.log(tmp_path)
    assert cells.result(tmp_path)["weights"] == first["weights"]
    assert rebuild(tmp_path, 4).weights == first["weights"]["last"]


def test_a_start_with_other_bits_is_refused_in_one_line():
    header = {"start": "abc", "device": "an H100"}
    check_start({}, "abc")
    check_start(header, "abc")
    with pytest.raises(
        UserError, match=r"^tuning: .*abd instead of abc, on an H100.*what to do: co"
    ):
        check_start(header, "abd")
