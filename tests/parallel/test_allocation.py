"""Several processes do not allocate by gradients, which would be those of their own rows."""

from __future__ import annotations

import cells


def test_two_processes_are_refused_in_one_line(tmp_path):
    options = ["tuning=gated_lora", "allocation=grad_norm", "optimizer=adamw"]
    assert cells.run(tmp_path, *options, processes=2) == [2, 2], cells.log(tmp_path)
    log = cells.log(tmp_path)
    assert "Traceback" not in log
    refused = [line for line in log.splitlines() if "single process" in line]
    assert len(refused) in (1, 2)  # a process may end before it has written its line
    assert all(
        line.endswith(
            "allocation: with gradients it needs a single process; it was started as 2; allowed: "
            "one, or a proxy and an optimizer without gradients"
        )
        for line in refused
    )
