"""Dropout is drawn from the run's own streams and ends with the backward pass of a micro-batch."""

from __future__ import annotations

import pytest
import torch
from test_checkpointing import gradients, logits, model

from lozo_bench.errors import UserError
from lozo_bench.models.checkpointing import checkpoint_layers
from lozo_bench.models.dropout import Dropout


def logits_with_dropout(made, seed, step, part):
    with Dropout(made, seed)(step, part), torch.no_grad():
        return logits(made)


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_what_drops_out_depends_only_on_the_run_the_step_and_the_micro_batch(kind):
    made = model(kind)
    first = logits_with_dropout(made, 1, 2, 3)
    torch.rand(5, generator=torch.Generator())
    assert torch.equal(logits_with_dropout(made, 1, 2, 3), first)
    for key in [(0, 2, 3), (1, 3, 3), (1, 2, 4), (1, 3, 2)]:
        assert not torch.allclose(logits_with_dropout(made, *key), first)


def test_other_draws_are_unaffected_and_evaluation_has_no_dropout():
    made = model("masked")
    failing = torch.nn.Linear(2, 2)
    without_dropout, before = logits(made), torch.random.get_rng_state()
    logits_with_dropout(made, 0, 1, 0)
    with pytest.raises(RuntimeError, match="shapes"), Dropout(failing, 0)(1, 0):
        failing(torch.rand(3))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(logits(made), without_dropout)
    assert not failing.training


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_recomputed_layers_drop_out_the_same_elements(kind):
    plain, saving = model(kind), model(kind)
    checkpoint_layers(saving)
    with Dropout(plain, 0)(1, 0):
        wanted = gradients(plain)
    with Dropout(saving, 0)(1, 0):
        found = gradients(saving)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    without_dropout = gradients(model(kind))
    name = next(name for name in found if "layer" in name)
    assert not torch.allclose(found[name], without_dropout[name])


def test_the_mean_over_many_draws_is_near_the_output_without_dropout():
    """Dropout scales what it keeps, so the mean output of a linear model is the same."""
    made = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(40, 1)).eval()
    x = torch.ones(1, 40)
    with torch.no_grad():
        made[1].weight.fill_(1.0)
        drops, draws = Dropout(made, 0), []
        for step in range(400):
            with drops(step, 0):
                draws.append(made(x) - made[1].bias)
    values = torch.cat(draws)
    # Each value is twice a binomial of 40 and 1/2: mean 40, standard deviation sqrt(40).
    assert abs(float(values.mean()) - 40) < 4 * (40 / 400) ** 0.5
    assert float(values.std()) == pytest.approx(40**0.5, rel=0.15)


def test_a_device_whose_generator_torch_gives_no_access_to_is_refused():
    with pytest.raises(UserError, match=r"optimizer\.dropout: given True; allowed: false with a"):
        Dropout(torch.nn.Linear(2, 2, device="meta"), 0)
