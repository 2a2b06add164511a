"""The peak memory of a whole run beyond the weights, and the script that shows it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import peak_memory  # noqa: E402
from peak.counted import Batches, count  # noqa: E402
from peak.live import Live, LiveMode  # noqa: E402
from peak.phases import PHASES  # noqa: E402

OF_LOZO = set(PHASES) - {"save a checkpoint"}
OF_MEZO = OF_LOZO - {"draw a direction", "close a period", "fold"}


@pytest.fixture(scope="module", params=["lozo", "mezo"])
def counted(request):
    """A run of OPT-13B: its peaks beyond the weights, and the bytes of the weights.

    They grow linearly with the layers from the fourth on, of which a fold makes factors together.
    """
    fewer = 4 if request.param == "lozo" else 1
    less, more = (
        count("opt-13b", request.param, Batches(16, 200, 2), layers, scored=18)
        for layers in (fewer, fewer + 2)
    )

    def whole(of_less, of_more):
        return of_less + (40 - fewer) / 2 * (of_more - of_less)

    own, of_more = (peak_memory.own_bytes(each) for each in (less, more))
    device = {phase: whole(own[phase], of_more[phase]) for phase in own}
    host = {
        phase: whole(peak["cpu"], max(peak["cpu"], more.phases[phase]["cpu"]))
        for phase, peak in less.phases.items()
    }
    return request.param, less.calls, whole(less.weights, more.weights), device, host


def test_no_phase_of_a_run_of_opt_13b_takes_3_percent_of_the_weights_beside_them(counted):
    name, calls, weights, device, _ = counted
    assert device.keys() - {"between the phases"} == (OF_LOZO if name == "lozo" else OF_MEZO)
    assert calls["fold"] == (2 if name == "lozo" else 0)
    assert weights > 25e9
    assert {phase for phase, own in device.items() if own > 0.03 * weights} == set()


def test_the_host_holds_no_copy_of_the_weights_of_opt_13b(counted):
    *_, weights, _, host = counted
    assert {phase for phase, held in host.items() if held > 0.03 * weights} == set()


def test_bytes_count_from_when_a_tensor_is_made_to_when_it_is_freed():
    live, before = Live(), torch.ones(1000)
    live.leave_out([before])
    with LiveMode(live):
        a = torch.zeros(250)
        b = a.view(10, 25) + 1  # a view takes nothing, the sum 1000 bytes
        before.add_(1)
        assert live.take() == {"cpu": 2000}
        del a, b
        assert live.take() == {"cpu": 2000}
        torch.zeros(100, device="meta")
        assert live.take() == {"cpu": 0, "meta": 400}


def test_the_counts_are_printed_by_phase(monkeypatch, capsys):
    arguments = ["count", "--model", "opt-125m", "--layers", "1", "--batch", "2", "--tokens", "8"]
    monkeypatch.setattr(sys, "argv", ["peak_memory.py", *arguments])
    peak_memory.main()
    out = capsys.readouterr().out
    assert re.search(r"opt-125m, lozo: weights 0\.\d+ GB; activations \d", out)
    assert (
        len(re.findall(r"\nrestore the best step +1 +\d+\.\d +-?\d+\.\d +-?\d+\.\d\d%", out)) == 2
    )
