"""The singular values of gradients that a first-order run logs."""

from __future__ import annotations

import pytest
import torch
from test_every_optimizer import make, trainable
from toys import run

from lozo_bench.errors import BadValueError
from lozo_bench.optimizers.spectra import Spectra, singular_values


def test_a_gradient_of_rank_two_has_two_singular_values():
    left, right = torch.linalg.qr(torch.randn(8, 2))[0], torch.linalg.qr(torch.randn(5, 2))[0]
    found = singular_values(left @ torch.diag(torch.tensor([3.0, 2.0])) @ right.T)
    torch.testing.assert_close(found, torch.tensor([3.0, 2.0, 0, 0, 0]), atol=1e-5, rtol=0)


def test_they_are_those_of_the_gradient_before_it_is_clipped():
    x = torch.zeros(2, 2, requires_grad=True)
    x.grad = torch.diag(torch.tensor([30.0, 4.0]))
    (event,) = Spectra(10, "q_proj").events({"a.q_proj.weight": x, "b": x}, steps_before=20)
    assert event.values == {"weight": "a.q_proj.weight", "values": "30 4"}
    assert Spectra(10, "q_proj").events({"a.q_proj.weight": x}, steps_before=21) == []


def test_adamw_logs_them_every_so_many_steps():
    engine, loss = trainable()
    (name, *_) = (name for name, x in engine.X.items() if x.ndim == 2)
    optimizer = make("adamw", engine, lr=1e-3, spectra_every=2, spectra_of=name)
    reports = run(optimizer, engine, loss, steps=3)
    assert [[event.name for event in report.events] for report in reports] == [
        ["singular_values"], [], ["singular_values"],
    ]  # fmt: skip


@pytest.mark.parametrize(("every", "of"), [(-1, "a"), (1, "("), (1, "nothing")])
def test_a_bad_option_is_refused(every, of):
    x = torch.ones(2, 2, requires_grad=True)
    x.grad = torch.ones(2, 2)
    with pytest.raises(BadValueError, match="spectra_"):
        Spectra(every, of).events({"a": x}, 0)
