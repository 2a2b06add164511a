"""Zeroth-order optimizers under an allocation: what is off stays, and the run can be replayed."""

from __future__ import annotations

import pytest
import torch
from gated_models import Run
from methods import CONF, ZEROTH_ORDER
from omegaconf import OmegaConf

from lozo_bench.config.build import build
from lozo_bench.config.resolvers import register_resolver
from lozo_bench.engine.protocol import ScoredBatch
from lozo_bench.engine.score import Score
from lozo_bench.engine.tensors import fingerprint
from lozo_bench.optimizers.state import load_optimizer_state, optimizer_state
from lozo_bench.randomness.draws import Draws

register_resolver()
# MeZO-LoRA has adapters of its own. MeZO on tuning=gated_lora is the same method.
NAMES = [name for name in ZEROTH_ORDER if name != "mezo_lora"]
FORWARD_ONLY = {
    "_target_": "lozo_bench.allocation.forward_only.ForwardOnly", "eps": 1e-3, "form": "signs",
    "patterns": 4, "directions": 1,
}  # fmt: skip


def run_of(name, **options):
    def make(engine):
        node = OmegaConf.create({"optimizer": OmegaConf.load(CONF / f"{name}.yaml")})
        node.rank, node.model, node.steps = {"value": 2}, {"autocast": None}, 6
        chosen = OmegaConf.to_container(node, resolve=True)["optimizer"]
        chosen |= {"lr": 1e-2} | ({"sparsity": 0.1} if name == "zo_sparse" else {})
        return build(chosen, "optimizer", engine, Draws(0))

    return Run(optimizer=make, budget=0.5, **options)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_off_stays_to_the_bit_with_all_that_is_kept_for_it(name):
    run = run_of(name, proxy="constant")
    weights, moved = run.engine.X.every, set()
    for _ in range(6):
        before = {n: x.detach().clone() for n, x in weights.items()}
        kept = optimizer_state(run.inner)
        run.steps(1)
        run.engine.flush()
        off = run.tuned.extras.off()
        assert 0 < len(off) < len(weights)
        moved |= {n for n, x in weights.items() if not torch.equal(x, before[n])}
        for n in off:
            assert torch.equal(weights[n], before[n]), n
        for key, x in optimizer_state(run.inner).items():
            if key.rpartition("/")[2] in off and key in kept:
                assert torch.equal(x, kept[key]), key
    assert moved == set(weights)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_replayed_from_its_losses_and_continued_from_its_state(name):
    run, answers = run_of(name, proxy=FORWARD_ONLY, epoch=2), []
    for step in range(6):
        if step == 3:
            middle = run.engine.state(), optimizer_state(run.optimizer)
        score = run.score()
        run.optimizer.step(score)
        answers.append(score.answers)
    end = fingerprint(run.engine.tensors())

    replayed = run_of(name, proxy=FORWARD_ONLY, epoch=2)
    for each in answers:
        score = Score(
            replayed.engine, [], examples=4, recorded=each,
            streams=lambda name: ScoredBatch(examples=4),
        )  # fmt: skip
        replayed.optimizer.step(score)
    assert fingerprint(replayed.engine.tensors()) == end

    continued = run_of(name, proxy=FORWARD_ONLY, epoch=2)
    continued.engine.load_state(middle[0])
    load_optimizer_state(continued.optimizer, middle[1])
    continued.made = 3
    continued.steps(3)
    assert fingerprint(continued.engine.tensors()) == end
