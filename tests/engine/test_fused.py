"""The fused engine gives the losses and trajectories of the in-place engine."""

from __future__ import annotations

import pytest
import torch
from models import MAKERS, model, part
from torch.nn import functional as F

from lozo_bench.engine.finite import NonFiniteLossError
from lozo_bench.engine.fold import Folder
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.engine.subspace import Subspace, along, combination, stacked
from lozo_bench.errors import UserError
from lozo_bench.optimizers.eggroll import Eggroll
from lozo_bench.optimizers.low_rank import LowRankDirections
from lozo_bench.optimizers.lozo import Lozo
from lozo_bench.optimizers.lozo_m import LozoM
from lozo_bench.optimizers.lozo_per_example import LozoPerExample
from lozo_bench.optimizers.lozo_q import LozoQ
from lozo_bench.optimizers.mezo_lora import MezoLora
from lozo_bench.randomness.draws import Draws

SETTINGS = {
    "one at a time": {"per_forward": 1},
    "chunked": {"per_forward": 3},
    "stacked": {"per_forward": 4},
    "folded when 5 columns are exceeded": {"per_forward": 4, "max_rank": 5},
    "never folded": {"per_forward": 4, "max_rank": 1000},
}


def fused(net, X, **options):
    return Fused(net, X, Folder("nearest", Draws(0)), **options)


def displacement(kind, engine_of, optimizer_class, steps, attention="sdpa", **options):
    """Return the change of all weights after some steps, as one vector."""
    net = model(kind, attention=attention)
    X = dict(net.named_parameters())
    before = {name: x.detach().clone() for name, x in X.items()}
    engine = engine_of(net, X)
    optimizer = optimizer_class(engine, Draws(1), **options)
    batch = [part(net), part(net, rows=((20, 21), (22, 23)))]
    for _ in range(steps):
        optimizer.step(Score(engine, batch))
    with torch.no_grad():
        engine.flush()
        adapter = getattr(getattr(engine, "pending", None), "adapter", None)
        if adapter is not None:  # flush() does not add an adapter to the weights
            for name, U in adapter.U.items():
                X[name] += U @ adapter.C @ adapter.V[name].T
    return torch.cat([(x.detach() - before[name]).flatten() for name, x in X.items()])


@pytest.mark.parametrize("kind", ["opt", "roberta", "gpt2", "llama"])
def test_12_steps_end_at_the_same_weights_on_both_engines_and_with_every_setting(kind):
    """The engines differ by less than 1e-10 of the displacement in 4 periods of 3 steps."""
    options = {"lr": 1e-3, "eps": 1e-3, "rank": 2, "nu": 3, "q": 2}
    wanted = displacement(kind, lambda net, X: InPlace(X), LozoQ, 12, **options)
    for setting, given in SETTINGS.items():
        got = displacement(
            kind, lambda net, X, given=given: fused(net, X, **given), LozoQ, 12, **options
        )
        assert (got - wanted).norm() < 1e-10 * wanted.norm(), setting


METHODS = {
    "lozo": (Lozo, {"lr": 1e-3, "eps": 1e-3, "rank": 2, "nu": 4, "weight_decay": 0.1}),
    "lozo_m": (LozoM, {"lr": 1e-3, "eps": 1e-3, "rank": 2, "nu": 4, "projection": "exact"}),
    "lozo_per_example": (LozoPerExample, {"lr": 1e-3, "eps": 1e-3, "rank": 2, "nu": 4}),
    "eggroll": (Eggroll, {"lr": 1e-3, "sigma": 1e-3, "rank": 2, "population": 6}),
    "mezo_lora": (
        MezoLora,
        {"lr": 1e-2, "eps": 1e-2, "rank": 3, "alpha": 6.0, "targets": "q_proj|v_proj|query|attn"},
    ),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["opt", "bert", "gpt2"])
def test_every_low_rank_method_has_the_same_trajectory_on_both_engines(kind, method):
    optimizer_class, options = METHODS[method]
    wanted = displacement(kind, lambda net, X: InPlace(X), optimizer_class, 6, **options)
    for per_forward in (1, None):
        got = displacement(
            kind,
            lambda net, X, k=per_forward: fused(net, X, per_forward=k, max_rank=3),
            optimizer_class,
            6,
            **options,
        )
        assert wanted.norm() > 0
        assert (got - wanted).norm() < 1e-9 * wanted.norm()


@pytest.mark.parametrize("kind", MAKERS)
def test_eager_attention_works_on_the_fused_engine(kind):
    options = {"lr": 1e-3, "eps": 1e-3, "rank": 2, "nu": 4}
    ends = [
        displacement(kind, engine_of, Lozo, 6, attention="eager", **options)
        for engine_of in (lambda net, X: InPlace(X), fused)
    ]
    assert (ends[0] - ends[1]).norm() < 1e-10 * ends[0].norm()


def test_tied_weights_are_perturbed_once():
    """The head and the embedding of OPT are one tensor, which has one U and one V."""
    net = model("opt")
    X = dict(net.named_parameters())
    assert "lm_head.weight" not in X
    name = "model.decoder.embed_tokens.weight"
    factors = Draws(2).normal("P", 0, {"U": (40, 1), "V": (16, 1)}, dtype=torch.float64)
    P = Subspace({name: factors["U"]}, {name: factors["V"]}, {})
    batch = part(net)
    (moved,) = Score(fused(net, {name: X[name]}), [batch])(P, [0.5])
    with torch.no_grad():
        X[name] += 0.5 * factors["U"] @ factors["V"].T
        assert net.lm_head.weight is X[name]
        assert moved == pytest.approx(float(batch.losses(1).mean()), rel=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_60_steps_at_learning_rate_zero_change_no_byte(dtype):
    net = model("opt", dtype)
    X = {name: x for name, x in net.named_parameters() if "layers.1" in name}
    before = {name: x.detach().clone() for name, x in net.named_parameters()}
    engine = Fused(net, X, Folder("stochastic", Draws(0)), max_rank=8)
    optimizer = Lozo(engine, Draws(0), lr=0.0, eps=1e-3, rank=2, nu=15)
    batch = [part(net, rows=((5, 6),))]
    for _ in range(60):
        optimizer.step(Score(engine, batch))
    engine.flush()
    for name, x in net.named_parameters():
        assert torch.equal(x.detach().view(torch.uint8), before[name].view(torch.uint8)), name


def test_the_model_uses_the_pending_updates_only_inside_the_weights_context():
    net = model("llama")
    X = dict(net.named_parameters())
    engine, batch = fused(net, X), part(net)
    plain = float(batch.losses(1).mean().detach())
    P = Subspace(
        {"lm_head.weight": torch.arange(40.0)[:, None].double()},
        {"lm_head.weight": torch.arange(16.0)[:, None].double()},
        {},
    )
    engine.move(P, along(P, 0.01))
    assert float(batch.losses(1).mean().detach()) == plain
    assert all(type(x) is torch.nn.Parameter for x in net.parameters())
    with engine.applied(), torch.no_grad():
        moved = float(batch.losses(1).mean())
    engine.flush()
    assert float(batch.losses(1).mean().detach()) == pytest.approx(moved, rel=1e-13)
    assert moved != pytest.approx(plain, rel=1e-6)


def test_candidates_are_not_scored_where_the_model_has_other_weights():
    net = model("opt")
    engine = fused(net, dict(net.named_parameters()))
    P = LowRankDirections(engine.X, Draws(1), 2, 3).draw(0)
    points = stacked([along(P, 0.1)])
    with engine.applied():
        with engine.applied():
            pass
        with pytest.raises(UserError, match="leave it before the next step"):
            engine.losses(P, points, [part(net)])
    assert engine.losses(P, points, [part(net)]).isfinite().all()


def test_a_step_with_a_non_finite_loss_changes_nothing():
    net = model("gpt2")
    X = dict(net.named_parameters())
    engine = fused(net, X)
    optimizer = Lozo(engine, Draws(0), lr=1e-3, eps=1e-3, rank=2, nu=5)
    good = part(net)
    optimizer.step(Score(engine, [good]))
    before = engine.state()
    bad = type(good)(good.size, good.tokens, lambda copies: good.losses(copies) / 0 * 0)
    with pytest.raises(NonFiniteLossError):
        optimizer.step(Score(engine, [bad]))
    after = engine.state()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(type(x) is torch.nn.Parameter for x in net.parameters())


def test_loading_a_state_restores_the_losses():
    net = model("opt")
    engine, batch = fused(net, dict(net.named_parameters()), max_rank=3), [part(net)]
    optimizer = Lozo(engine, Draws(0), lr=1e-2, eps=1e-3, rank=2, nu=3)
    for _ in range(7):
        optimizer.step(Score(engine, batch))
    state = engine.state()
    with engine.applied(), torch.no_grad():
        wanted = batch[0].losses(1)
    for _ in range(7):
        optimizer.step(Score(engine, batch))
    engine.load_state(state)
    with engine.applied(), torch.no_grad():
        assert torch.equal(batch[0].losses(1), wanted)


def test_coordinates_of_one_example_affect_only_that_example():
    net = model("opt")
    X = dict(net.named_parameters())
    engine, batch = fused(net, X), part(net)
    name = "model.decoder.layers.0.fc1.weight"
    f = Draws(4).normal("P", 0, {"U": (32, 3), "V": (16, 1)}, dtype=torch.float64)
    P = Subspace({name: f["U"]}, {name: f["V"]}, {})
    own = combination(P, torch.diag(torch.tensor([0.3, -0.2, 0.0], dtype=torch.float64)))
    each = engine.losses(P, stacked([own]), [batch])[0]
    for b, c in enumerate((0.3, -0.2, 0.0)):
        with torch.no_grad():
            X[name] += c * f["U"][:, b : b + 1] @ f["V"].T
            assert each[b] == pytest.approx(float(batch.losses(1)[0, b]), rel=1e-12)
            X[name] -= c * f["U"][:, b : b + 1] @ f["V"].T


def test_full_rank_directions_are_refused():
    net = model("opt")
    with pytest.raises(UserError, match="only be scored in place"):
        Score(fused(net, dict(net.named_parameters())), [part(net)]).full_rank(None, [1.0])


class LengthFirst(torch.nn.Module):
    """A model whose inputs have rows first but whose layers work on [length, rows, ...]."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(9, 4).double()
        self.out = torch.nn.Linear(4, 9).double()

    def forward(self, ids):
        return self.out(self.embed(ids).transpose(0, 1)).transpose(0, 1)


def test_a_model_that_mixes_the_rows_of_stacked_candidates_is_refused():
    net = LengthFirst().eval()
    shapes = {name: x.shape for name, x in net.named_parameters()}
    with torch.no_grad():
        for name, x in Draws(0).normal("W", 0, shapes, dtype=torch.float64).items():
            net.get_parameter(name).copy_(x)
    ids = torch.arange(12).view(2, 6) % 9

    def losses(copies):
        logits = net(ids.repeat(copies, 1)).transpose(1, 2)
        every = F.cross_entropy(logits, ids.repeat(copies, 1), reduction="none")
        return every.mean(1).view(copies, 2)

    X = dict(net.named_parameters())
    batch = [MicroBatch(2, 12, losses)]
    options = {"lr": 1e-3, "eps": 1e-3, "rank": 2, "nu": 5}
    together = fused(net, X, per_forward=2)
    lozo = Lozo(together, Draws(0), **options)
    with pytest.raises(UserError, match=r"LengthFirst does not keep the rows .*per_forward=1"):
        lozo.step(Score(together, batch))
    engine = fused(net, X, per_forward=1)
    Lozo(engine, Draws(0), **options).step(Score(engine, batch))
    P = lozo.directions.draw(0)
    later = Score(fused(net, X, per_forward=2), batch)
    later(P, (0.0,))  # a candidate by itself shares its pass with none, and shows nothing
    with pytest.raises(UserError, match="does not keep the rows"):
        later(P, (+1e-3, -1e-3))


def test_a_model_in_training_mode_is_refused_because_dropout_would_differ():
    net = model("opt").train()
    with pytest.raises(UserError, match=r"training mode.*model\.eval\(\)"):
        fused(net, dict(net.named_parameters()))


def test_losses_of_the_wrong_shape_are_refused():
    net = model("opt")
    engine = fused(net, dict(net.named_parameters()))
    P = Subspace({}, {}, {})
    with pytest.raises(
        ValueError, match=r"losses\(1\) .* must be of shape \[1, 3\].* is of shape \[\]"
    ):
        Score(engine, [MicroBatch(3, 300, lambda copies: torch.tensor(1.0))])(P, [0.0])


def test_a_weight_that_cannot_be_viewed_as_a_matrix_is_refused():
    X = {"conv": torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last)}
    with pytest.raises(UserError, match="'conv' has 4 dimensions and is not contiguous"):
        InPlace(X)
