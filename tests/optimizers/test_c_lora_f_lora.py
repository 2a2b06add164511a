"""C-LoRA and F-LoRA on tiny language models: costs, statistics, and what they leave behind."""

from __future__ import annotations

import re

import pytest
import torch
from methods import SEARCHING
from omegaconf import OmegaConf

from lozo_bench.config.build import build
from lozo_bench.config.paths import CONF
from lozo_bench.engine.fold import Folder
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.engine.tensors import fingerprint
from lozo_bench.errors import UserError
from lozo_bench.optimizers.c_lora import CLora
from lozo_bench.optimizers.f_lora import FLora
from lozo_bench.optimizers.state import load_optimizer_state, optimizer_state
from lozo_bench.randomness.draws import Draws

pytestmark = pytest.mark.timeout(120)

OPTIONS = {"rank": 2, "intrinsic_dim": 8, "popsize": 4, "budget": 40, "sigma": 0.5}
TARGETS = OmegaConf.load(CONF / "tuning" / "queries_keys.yaml").targets


def tiny(seed=0):
    """A RoBERTa of two layers in float64, and a loss that reads its logits."""
    from transformers import RobertaConfig, RobertaForMaskedLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = RobertaForMaskedLM(
            RobertaConfig(
                vocab_size=30,
                hidden_size=8,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=16,
                max_position_embeddings=20,
                initializer_range=0.3,
            )
        ).double()
    return model.eval().requires_grad_(False)


IDS = torch.tensor([[0, 5, 6, 7, 2, 1], [0, 8, 9, 10, 11, 2], [0, 12, 2, 1, 1, 1]])


class Setup:
    def __init__(self, method=CLora, returns=lambda loss: loss, **options):
        self.model = tiny()
        X = {n: x for n, x in self.model.named_parameters() if re.search(TARGETS, n)}
        self.engine = Fused(self.model, X, Folder("nearest", Draws(0)))
        self.optimizer = method(self.engine, Draws(0), **OPTIONS | options)
        self.returns = returns
        self.rows = 0

    def losses(self, copies):
        ids = IDS.repeat(copies, 1)
        self.rows += len(ids)
        logits = self.model(input_ids=ids, attention_mask=(ids != 1).long()).logits[:, 1]
        labels = torch.tensor([3, 4, 3]).repeat(copies)
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        return self.returns(losses).view(copies, len(IDS))

    def score(self, **options):
        part = MicroBatch(len(IDS), IDS.numel(), self.losses, key=("rows",))
        return Score(self.engine, [part], **options)

    def steps(self, count):
        return [self.optimizer.step(self.score()) for _ in range(count)]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (CLora, {}),
        (CLora, {"faithful": True}),
        (CLora, {"projection": "random", "step_size": "tpa", "diagonal": True}),
        (FLora, {}),
        (FLora, {"reevaluate": False}),
        (FLora, {"variant": "lotfwa", "popsize": 8}),
        (FLora, {"variant": "lotfwa", "fireworks": 4, "popsize": 16, "budget": 160}),
    ],
)
def test_every_turn_costs_popsize_calls_and_the_budget_gives_the_turns(method, options):
    setup = Setup(method, **options)
    popsize, budget = options.get("popsize", 4), options.get("budget", 40)
    assert setup.optimizer.needs.steps == 2 * (budget // (2 * popsize))
    reports = setup.steps(setup.optimizer.needs.steps)
    assert {report.forwards for report in reports} == {popsize}
    assert all(0 < report.scalars["std_dW"] < 100 for report in reports)
    zero = reports[0].events[0].values["loss"]
    assert zero == pytest.approx(float(Setup().losses(1).mean()))


def test_the_search_finds_a_smaller_loss():
    for method in (CLora, FLora):
        setup = Setup(method, budget=400)
        reports = setup.steps(100)
        assert reports[-1].loss < reports[0].events[0].values["loss"] - 0.1


def test_as_released_statistics_are_of_the_first_candidate_with_padding():
    ours, released = Setup(), Setup(faithful=True)
    ours.steps(1)
    (plain,) = [ours.optimizer.turns.stds]
    fresh = Setup()
    assert plain == fresh.score().hidden_spread()
    released.steps(1)
    stds = released.optimizer.turns.stds
    padded = fresh.score().hidden_spread(padding=True)
    assert stds[0] == padded[0] == plain[0]
    assert stds[1] != padded[1]
    assert padded[1] != plain[1]


@pytest.mark.parametrize("options", [{}, {"faithful": True}])
def test_a_layer_that_is_searched_alone_has_its_own_statistics(options):
    both = Setup(**options)
    padding = bool(options)
    wanted = both.score().hidden_spread(padding=padding)[1]
    second = {n: x for n, x in both.engine.X.items() if ".layer.1." in n}
    both.engine = Fused(both.model, second, Folder("nearest", Draws(0)))
    both.optimizer = CLora(both.engine, Draws(0), **OPTIONS | options)
    both.steps(1)
    assert both.optimizer.turns.stds == [wanted]


def test_as_released_in_one_word():
    turns, needs = (lambda o: (o.turns, o.needs))(Setup(faithful=True).optimizer)
    assert (turns.incumbent, turns.look, turns.statistics) == (
        "best_ever",
        "candidate",
        "first_candidate",
    )
    assert not needs.dev_after_last_step
    kinds = [[P.distribution for P in layer.projections] for layer in turns.modules]
    assert kinds == [["normal"] * 4, ["normal", "uniform"] * 2]
    turns = Setup(faithful=True, incumbent="mean", b_init="normal", dev="incumbent").optimizer.turns
    assert (turns.incumbent, turns.look) == ("mean", "incumbent")
    assert {P.distribution for layer in turns.modules for P in layer.projections} == {"normal"}


@pytest.mark.parametrize("method", [CLora, FLora])
@pytest.mark.parametrize("made", [1, 4])
def test_a_saved_state_and_a_replay_give_the_same_bits(method, made):
    straight = Setup(method)
    recorded = []
    for _ in range(made + 3):
        if len(recorded) == made:
            engine, state = straight.engine.state(), optimizer_state(straight.optimizer)
        score = straight.score()
        straight.optimizer.step(score)
        recorded.append(score.answers)
    end = fingerprint(straight.engine.state())

    resumed = Setup(method)
    resumed.engine.load_state(engine)
    load_optimizer_state(resumed.optimizer, state)
    resumed.steps(3)
    assert fingerprint(resumed.engine.state()) == end

    replayed = Setup(method)
    for answers in recorded:
        score = Score(replayed.engine, [], examples=len(IDS), recorded=answers)
        replayed.optimizer.step(score)
    assert replayed.rows == 0
    assert fingerprint(replayed.engine.state()) == end


def test_half_precision_is_not_searched_in_place():
    X = {name: x.bfloat16() for name, x in Setup().engine.X.items()}
    with pytest.raises(UserError, match=r"^engine\.mode: given in_place; allowed: fused"):
        CLora(InPlace(X), Draws(0), **OPTIONS)


def test_uniform_projections_cannot_be_normal():
    options = OPTIONS | {"projection": "random"}
    CLora(InPlace({}), Draws(0), **options, faithful=True)
    with pytest.raises(UserError, match="b_init: given 'normal'; allowed: null or uniform"):
        CLora(InPlace({}), Draws(0), **options, b_init="normal")


@pytest.mark.parametrize("name", SEARCHING)
def test_options_are_checked_without_any_weights(name):
    node = OmegaConf.create({"optimizer": OmegaConf.load(CONF / "optimizer" / f"{name}.yaml")})
    node.rank, node.optimizer.budget = {"value": 2}, 8000
    options = OmegaConf.to_container(node, resolve=True)["optimizer"]
    optimizer = build(options, "optimizer", InPlace({}), Draws(0))
    assert optimizer.needs.steps is None
    optimizer_state(optimizer)
    for key, value in (
        ("budget", 0),
        ("budget", 19),
        ("popsize", 1),
        ("sigma", 0),
        ("alpha", -1),
        ("bounds", 0),
    ):
        with pytest.raises(UserError, match=rf"^optimizer\.{key}: given {value}; allowed: "):
            build(options | {key: value}, "optimizer", InPlace({}), Draws(0))
    with pytest.raises(UserError, match=r"^optimizer\.lr: no such key"):
        build(options | {"lr": 1}, "optimizer", InPlace({}), Draws(0))
