"""AdaLoRA's choice of triplets is compared with peft's, step by step."""

from __future__ import annotations

import pytest
import torch
from gated_models import Stack, part
from peft import AdaLoraConfig, inject_adapter_in_model
from peft.tuners.adalora import RankAllocator

from lozo_bench.allocation.adalora import AdaLora, FewerTriplets, orthogonality
from lozo_bench.allocation.base import Length
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.score import Score
from lozo_bench.engine.tensors import fingerprint
from lozo_bench.errors import UserError
from lozo_bench.optimizers.adamw import AdamW
from lozo_bench.optimizers.base import Needs
from lozo_bench.optimizers.state import load_optimizer_state, optimizer_state
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning import adalora
from lozo_bench.tuning.base import Tuned
from lozo_bench.tuning.lora import Lora

T = 20
OPTIONS = {"target_r": 1, "initial": 0.1, "final": 0.3, "interval": 3, "beta1": 0.8, "beta2": 0.7}
OPTIONS |= {"gamma": 0.2}
SCHEDULE = {"target_r": 1, "tinit": 2, "tfinal": 6, "deltaT": 3, "beta1": 0.8, "beta2": 0.7}
FIRST_ORDER = Needs(gradient=True, replayable=False)


def model():
    """Return a stack with three triplets beside each projection."""
    made = Stack(3, 4).double()
    config = AdaLoraConfig(
        init_r=3, lora_alpha=6, target_modules=r".*_proj", total_step=T, orth_reg_weight=0.2,
        **SCHEDULE,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        inject_adapter_in_model(config, made)
    for name, x in made.named_parameters():
        if "ranknum" not in name:
            draw = Draws(5).normal("weights", 0, {name: tuple(x.shape)}, dtype=torch.float64)[name]
            x.data = draw * (0.0 if "lora_E" in name else 0.5)
        x.requires_grad_("lora_" in name)
    return made.eval(), config


def run():
    made, _ = model()
    X = {n: x for n, x in made.named_parameters() if x.requires_grad}
    engine = InPlace(X, made)
    inner = AdamW(engine, Draws(0), lr=0.05, autocast=None, max_grad_norm=None)
    tuned = Tuned(X, made, all_weights=False)
    around = AdaLora(**OPTIONS).around
    return engine, around(inner, engine, tuned, Draws(0), Length(T, {"": 5}))


def test_every_step_is_that_of_peft():
    engine, ours = run()
    made, config = model()
    names = [n for n, x in made.named_parameters() if x.requires_grad]
    weights = [made.get_parameter(n) for n in names]
    adam = torch.optim.AdamW(weights, lr=0.05, weight_decay=0.0)
    allocator, pattern, counts = RankAllocator(made, config, "default"), None, []
    for t in range(1, T + 1):
        report = ours.step(Score(engine, [part(engine.model, t)]))
        penalty = torch.stack(
            [
                torch.linalg.norm((x.T @ x if "lora_B" in n else x @ x.T) - torch.eye(3))
                for n, x in zip(names, weights, strict=True)
                if "lora_E" not in n
            ]
        ).mean()
        adam.zero_grad()
        (part(made, t).losses(1).mean() + 0.2 * penalty).backward()
        adam.step()
        if t < T - 6:
            _, found = allocator.update_and_allocate(made, t)
            pattern = found or pattern
        elif t == T - 6:
            _, pattern = allocator.update_and_allocate(made, t, force_mask=True)
        else:
            allocator.mask_using_rank_pattern(made, pattern)
        for name, x in zip(names, weights, strict=True):
            torch.testing.assert_close(engine.X[name], x, rtol=1e-9, atol=1e-12)
        counts.append(sum(int(x.any(1).sum()) for n, x in engine.X.items() if "lora_E" in n))
        assert [e.name for e in report.events] == (["allocation"] if t == T - 6 else [])
    assert counts[:2] == [18, 18]
    assert set(counts[T - 7 :]) == {6}
    assert len(set(counts)) > 2


def test_a_run_continues_from_its_state_to_the_bit():
    engine, whole = run()
    for t in range(1, T + 1):
        if t == 12:
            weights, state = engine.state(), optimizer_state(whole)
        whole.step(Score(engine, [part(engine.model, t)]))
    other, again = run()
    assert isinstance(again, FewerTriplets)
    other.load_state(weights)
    load_optimizer_state(again, state)
    for t in range(12, T + 1):
        again.step(Score(other, [part(other.model, t)]))
    assert fingerprint(other.tensors()) == fingerprint(engine.tensors())


def test_orthogonal_triplets_have_no_penalty():
    engine, optimizer = run()
    with torch.no_grad():
        for name, x in engine.X.items():
            if "lora_E" not in name:
                x.copy_(torch.eye(*x.shape))
    assert float(orthogonality(engine.X, optimizer.setup.matrices).detach()) == 0.0


def test_what_cannot_be_is_refused_in_one_line():
    tuning = adalora.AdaLora(r=3, alpha=1.0, targets="q")
    assert AdaLora(**OPTIONS).needs(FIRST_ORDER, tuning) is FIRST_ORDER
    with pytest.raises(UserError, match=r"^allocation: AdaLoRA reads the gradients of the steps; "):
        AdaLora(**OPTIONS).needs(Needs(directions="low_rank"), tuning)
    with pytest.raises(
        UserError, match=r"^allocation: AdaLoRA is given with Lora; allowed: tuning"
    ):
        AdaLora(**OPTIONS).needs(FIRST_ORDER, Lora(r=1, alpha=1.0, targets="q"))
    with pytest.raises(
        UserError, match=r"^allocation\.target_r: given 4; allowed: up to tuning\.r"
    ):
        AdaLora(**OPTIONS | {"target_r": 4}).needs(FIRST_ORDER, tuning)
    with pytest.raises(UserError, match=r"^final: given 0\.9; allowed: below 0\.9, or nothing is"):
        AdaLora(**OPTIONS | {"final": 0.9})
