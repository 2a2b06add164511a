"""AdamW is torch's."""

from __future__ import annotations

import torch
from toys import run, two_layers

from lozo_bench.engine.draws import Draws
from lozo_bench.optimizers.adamw import AdamW


def test_a_trajectory_equals_torchs_own():
    X, loss = two_layers()
    for x in X.X.values():
        x.requires_grad_()
    run(AdamW(X, Draws(0), lr=1e-2, weight_decay=0.1, max_grad_norm=1e9), X, loss, steps=5)

    Y, loss = two_layers()
    for y in Y.X.values():
        y.requires_grad_()
    matrices = [y for y in Y.X.values() if y.ndim == 2]
    reference = torch.optim.AdamW(
        [{"params": matrices}, {"params": [Y.X["bias"]], "weight_decay": 0.0}],
        lr=1e-2,
        weight_decay=0.1,
    )
    for _ in range(5):
        reference.zero_grad()
        loss().backward()
        reference.step()
    torch.testing.assert_close(X.X, Y.X, rtol=0, atol=0)


def test_a_changed_lr_is_used_at_once():
    X, loss = two_layers()
    for x in X.X.values():
        x.requires_grad_()
    optimizer = AdamW(X, Draws(0), lr=1e-2)
    optimizer.lr = 0.0
    before = {name: x.detach().clone() for name, x in X.X.items()}
    report = run(optimizer, X, loss, steps=1)[0]
    torch.testing.assert_close({n: x.detach() for n, x in X.X.items()}, before, rtol=0, atol=0)
    assert (report.forwards, report.backwards) == (1, 1)
