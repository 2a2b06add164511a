"""Candidates that share their lower layers are scored from one hidden state, and exactly."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from itertools import count

import pytest
import torch
from models import GPT2_SIZES, MAKERS, model, part
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from lozo_bench.engine.directions import Restricted
from lozo_bench.engine.fold import Folder
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.engine.subspace import Coordinates, Subspace, along, stacked
from lozo_bench.optimizers.zo_block import ZoBlock
from lozo_bench.randomness.draws import Draws

K, RANK, WIDTH = 20, 2, 16
LENGTHS = (5, 23, 11)
ROWS = [tuple(range(5, 5 + length)) for length in LENGTHS]
SIZES = {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 4}
DEEPER = {
    "roberta": lambda L: RobertaForMaskedLM(
        RobertaConfig(**SIZES, num_hidden_layers=L, intermediate_size=32, pad_token_id=1)
    ),
    "gpt2": lambda L: GPT2LMHeadModel(
        GPT2Config(**{**GPT2_SIZES, "n_layer": L, "n_head": 4}, bos_token_id=0, eos_token_id=0)
    ),
    "opt": lambda L: OPTForCausalLM(
        OPTConfig(**SIZES, num_hidden_layers=L, ffn_dim=32, word_embed_proj_dim=16)
    ),
    "gpt_neo": lambda L: GPTNeoForCausalLM(
        GPTNeoConfig(
            vocab_size=40,
            hidden_size=16,
            num_layers=L,
            num_heads=4,
            intermediate_size=32,
            attention_types=[[["global", "local"], L // 2]],
            window_size=4,
            bos_token_id=0,
            eos_token_id=0,
        )
    ),
    "llama": lambda L: LlamaForCausalLM(
        LlamaConfig(
            **SIZES, num_hidden_layers=L, intermediate_size=32, num_key_value_heads=2, head_dim=4
        )
    ),
}
# For each layer, its weights of queries and keys: name, and the number of a slice of c_attn.
QUERIES_KEYS = {
    "roberta": ("roberta.encoder.layer.{}.attention.self.{}.weight", ("query", "key")),
    "opt": ("model.decoder.layers.{}.self_attn.{}.weight", ("q_proj", "k_proj")),
    "gpt_neo": ("transformer.h.{}.attn.attention.{}.weight", ("q_proj", "k_proj")),
    "llama": ("model.layers.{}.self_attn.{}.weight", ("q_proj", "k_proj")),
    "gpt2": ("transformer.h.{}.attn.c_attn.weight", ("",)),
}


def deeper(kind, L, monkeypatch):
    monkeypatch.setitem(MAKERS, kind, lambda: DEEPER[kind](L))
    return model(kind)


def names(kind, i):
    pattern, both = QUERIES_KEYS[kind]
    return [pattern.format(i, each) for each in both]


def candidates(net, kind, i, seed, how_many=K):
    """Return a population of layer i: P, coordinates, and the dense change of each candidate."""
    U, V, draws = {}, {}, Draws(seed)
    rank = 2 * RANK if kind == "gpt2" else RANK  # c_attn: columns of q, then columns of k
    for name in names(kind, i):
        x = net.get_parameter(name)
        shapes = {"U": (len(x), how_many * rank), "V": (x.shape[1], how_many * rank)}
        both = draws.normal(name, i, shapes, dtype=torch.float64)
        U[name], V[name] = 0.3 * both["U"], both["V"]
        if kind == "gpt2":
            for column in range(how_many * rank):
                own = slice(0, 16) if column % rank < RANK else slice(16, 32)
                outside = torch.ones(48, dtype=torch.bool)
                outside[own] = False
                V[name][outside, column] = 0
    C = torch.zeros(how_many, how_many * rank, how_many * rank, dtype=torch.float64)
    for k in range(how_many):
        own = slice(k * rank, (k + 1) * rank)
        C[k, own, own] = torch.eye(rank)
    P = Subspace(U, V, {})
    dense = [{name: U[name] @ C[k] @ V[name].T for name in U} for k in range(how_many)]
    return P, Coordinates(C, torch.zeros(how_many, 0, dtype=torch.float64)), dense


def incumbents(net, kind, layers, seed=5):
    """Return an adapter of these layers, and its dense change."""
    U, V, dense = {}, {}, {}
    for i in layers:
        P, _, change = candidates(net, kind, i, seed + i, 1)
        U, V, dense = U | P.U, V | P.V, dense | change[0]
    P = Subspace(U, V, {})
    return P, along(P, 1.0), dense


def merged(net, changes, batch):
    """Return the losses of a plain forward pass with the changes added to the weights."""
    before = {name: net.get_parameter(name).detach().clone() for name in changes}
    with torch.no_grad():
        for name, change in changes.items():
            net.get_parameter(name).add_(change)
        losses = torch.cat([part.losses(1) for part in batch], dim=1)
        for name, x in before.items():
            net.get_parameter(name).copy_(x)
    return losses[0]


def keyed(net, *rows):
    return [replace(part(net, each), key=str(each)) for each in rows]


def fused(net, **options):
    return Fused(net, dict(net.named_parameters()), Folder("nearest", Draws(0)), **options)


def left_behind(net):
    """Return hooks and functions that a plain model does not have."""
    return [
        module
        for module in net.modules()
        if module._forward_pre_hooks or module._forward_hooks or "forward" in vars(module)
    ]


class Entered:
    """Counts the rows that enter each layer's attention."""

    def __init__(self, net):
        self.rows = 0
        for module in net.modules():
            if type(module).__name__.endswith(("Attention", "AttentionBlock")) and not any(
                type(child).__name__.endswith("SelfAttention") for child in module.children()
            ):
                module.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module, args, options):
        self.rows += len(args[0] if args else options["hidden_states"])

    def during(self, run):
        before = self.rows
        run()
        return self.rows - before


@pytest.mark.parametrize("per_forward", [20, 3])
@pytest.mark.parametrize("kind", DEEPER)
def test_every_layers_population_has_the_losses_of_merged_weights(kind, per_forward, monkeypatch):
    net = deeper(kind, 4, monkeypatch)
    plain, engine = left_behind(net), fused(net, per_forward=per_forward)
    batch = keyed(net, ROWS)
    for i in range(4):
        others, at, change = incumbents(net, kind, {0, 1, 2, 3} - {i})
        engine.set_adapter(others, at)
        P, coordinates, dense = candidates(net, kind, i, seed=1)
        found = engine.losses(P, coordinates, batch)
        for k in range(K):
            wanted = merged(net, change | dense[k], batch)
            torch.testing.assert_close(found[k], wanted, rtol=0, atol=1e-10)
        assert found.std(0).min() > 1e-6
    assert {kept.layer for kept in engine._prefix._kept.values()} == {3}
    assert left_behind(net) == plain


def test_a_round_runs_each_layer_for_the_candidates_above_it_and_once_more(monkeypatch):
    """At L = 8, 20 x 36 N rows for the candidates, and 7 N to carry the state upwards."""
    L, N = 8, 2
    net = deeper("llama", L, monkeypatch)
    engine, batch, entered = fused(net), keyed(net, ROWS[::2]), Entered(net)
    populations = [candidates(net, "llama", i, seed=1)[:2] for i in range(L)]
    kept = {i: incumbents(net, "llama", [i])[0] for i in range(L)}

    def turn(i, batch):
        set_all(engine, {j: P for j, P in kept.items() if j != i})
        engine.losses(*populations[i], batch)
        kept[i] = incumbents(net, "llama", [i], seed=next(fresh))[0]
        set_all(engine, kept)

    def turns(batch):
        for i in range(L):
            turn(i, batch)

    fresh = count(100)
    turn(7, keyed(net, ROWS[:1]))  # checks once that everything is exact
    assert entered.during(lambda: turns(batch)) == (20 * 36 + 7) * N
    assert entered.during(lambda: turns(batch)) == (20 * 36 + 7) * N
    unnamed = [replace(part, key=None) for part in batch]
    assert entered.during(lambda: turns(unnamed)) == (20 * 36 + 28) * N
    engine._prefix._layers = None
    assert entered.during(lambda: turns(batch)) == 20 * L * L * N


def test_in_place_a_state_is_carried_past_layers_that_moved(monkeypatch):
    kind, N = "opt", len(ROWS)
    net = deeper(kind, 4, monkeypatch)
    engine = InPlace(dict(net.named_parameters()), net)
    batch, entered = keyed(net, ROWS), Entered(net)
    for i in (1, 2, 3):
        P, coordinates, dense = candidates(net, kind, i, seed=1, how_many=3)
        if i == 1:
            engine.losses(P, coordinates, [replace(batch[0], key=None)])
        rows = entered.during(lambda: engine.losses(P, coordinates, batch))  # noqa: B023
        assert rows == (1 + 3 * (4 - i)) * N
        found = engine.losses(P, coordinates, batch)
        engine.flush()
        for k in range(3):
            torch.testing.assert_close(found[k], merged(net, dense[k], batch), rtol=0, atol=1e-10)
        engine.move(P, coordinates[i - 1])


def set_all(engine, kept):
    U = {name: U for P in kept.values() for name, U in P.U.items()}
    V = {name: V for P in kept.values() for name, V in P.V.items()}
    engine.set_adapter(Subspace(U, V, {}), one())


def full(kind, net, engine, P, coordinates, batch):
    """Return the losses of the engine's weights as they are, without any reuse."""
    other = fused(net, reuse_prefix=False, per_forward=1)
    other.load_state(engine.state())
    return other.losses(P, coordinates, batch)


CHANGES = {
    "an adapter below": lambda e, net, kind: e.set_adapter(*incumbents(net, kind, {1})[:2]),
    "a move below": lambda e, net, kind: e.move(candidates(net, kind, 0, 9, 1)[0], one()),
    "a move of the embeddings": lambda e, net, kind: e.move(*embeddings(net, kind)),
    "a load": lambda e, net, kind: e.load_state(
        {key: 1.1 * x if key.startswith("X/") else x for key, x in e.state().items()}
    ),
    "decay": lambda e, net, kind: e.decay(0.1),
    "a write by somebody else": lambda e, net, kind: scale(net.get_parameter(names(kind, 0)[0])),
}


def one():
    return Coordinates(torch.eye(RANK, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))


def scale(x):
    with torch.no_grad():
        x.mul_(1.1)


def embeddings(net, kind):
    name = next(name for name, _ in net.named_parameters() if "embed" in name)
    x = net.get_parameter(name)
    P = Subspace({name: torch.ones(len(x), 1).double()}, {name: x[:1].detach().T.clone()}, {})
    return P, along(P, 0.3)


@pytest.mark.parametrize("change", CHANGES)
def test_a_state_is_not_used_after_something_below_it_changed(change, monkeypatch):
    kind = "llama"
    net = deeper(kind, 4, monkeypatch)
    engine, batch = fused(net, per_forward=20), keyed(net, ROWS[:2], ROWS[2:])
    P, coordinates, _ = candidates(net, kind, 3, seed=1, how_many=3)
    before = engine.losses(P, coordinates, batch)
    assert len(engine._prefix._kept) == 2
    CHANGES[change](engine, net, kind)
    after = engine.losses(P, coordinates, batch)
    assert (after - before).abs().max() > 1e-6
    wanted = full(kind, net, engine, P, coordinates, batch)
    torch.testing.assert_close(after, wanted, rtol=0, atol=1e-12)


def test_an_adapter_that_changes_in_a_later_layer_keeps_the_state(monkeypatch):
    kind = "roberta"
    net = deeper(kind, 4, monkeypatch)
    engine, batch, entered = fused(net), keyed(net, ROWS), Entered(net)
    P, coordinates, _ = candidates(net, kind, 2, seed=1, how_many=3)
    engine.set_adapter(*incumbents(net, kind, {0, 1, 2, 3})[:2])
    engine.losses(P, coordinates, batch)
    engine.set_adapter(*incumbents(net, kind, {0, 1, 3})[:2])  # equal, and not the same tensors
    assert entered.during(lambda: engine.losses(P, coordinates, batch)) == 3 * 2 * len(ROWS)
    others = incumbents(net, kind, {0, 1, 3})[0]
    engine.set_adapter(others, one())
    assert entered.during(lambda: engine.losses(P, coordinates, batch)) == 3 * 2 * len(ROWS)
    others.U[names(kind, 0)[0]].mul_(2)  # the caller's tensor, written to after it was set
    engine.set_adapter(others, one())
    assert entered.during(lambda: engine.losses(P, coordinates, batch)) == (2 + 3 * 2) * len(ROWS)


@pytest.mark.parametrize("how", ["fused", "in_place"])
def test_one_candidate_starts_from_a_state_only_if_there_is_one(how, monkeypatch):
    """One candidate, or that of this process, would need the layers below once anyway."""
    kind, N = "opt", len(ROWS)
    net = deeper(kind, 4, monkeypatch)
    X = dict(net.named_parameters())
    engine = fused(net, per_forward=1) if how == "fused" else InPlace(X, net)
    batch, entered = keyed(net, ROWS), Entered(net)
    P, coordinates, dense = candidates(net, kind, 2, seed=1, how_many=3)

    def rows(at, only=None):
        return entered.during(lambda: engine.losses(P, at, batch, only))

    assert rows(coordinates[1:2]) == 4 * N
    engine.losses(P, coordinates, batch)
    assert rows(coordinates[1:2]) == 2 * N
    assert rows(coordinates, only=[2]) == 2 * N
    assert rows(coordinates, only=[0, 2]) == 4 * N
    found = engine.losses(P, coordinates, batch, only=[2])
    assert found[:2].isnan().all()
    engine.flush()
    torch.testing.assert_close(found[2], merged(net, dense[2], batch), rtol=0, atol=1e-10)


def test_each_example_may_have_candidates_of_its_own(monkeypatch):
    kind = "gpt2"
    net = deeper(kind, 4, monkeypatch)
    batch = keyed(net, ROWS[:2], ROWS[2:])
    P, coordinates, _ = candidates(net, kind, 2, seed=1, how_many=6)
    own = Coordinates(coordinates.C.view(2, 3, 24, 24), coordinates.s.view(2, 3, 0))
    found = fused(net, per_forward=2).losses(P, own, batch, rows=[2, 0, 1])
    wanted = fused(net, reuse_prefix=False).losses(P, own, batch, rows=[2, 0, 1])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    in_place = InPlace(dict(net.named_parameters()), net).losses(P, own, batch, rows=[2, 0, 1])
    torch.testing.assert_close(in_place, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_candidates_of_the_final_norm_or_head_skip_all_layers(kind, monkeypatch):
    net = deeper(kind, 4, monkeypatch)
    name = {"llama": "lm_head.weight", "roberta": "lm_head.dense.weight"}[kind]
    x = net.get_parameter(name)
    P = Subspace({name: torch.ones(len(x), 1).double()}, {name: x[:1].detach().T.clone()}, {})
    points = stacked([along(P, c) for c in (-1.0, 0.5, 1.0)])
    batch, entered = keyed(net, ROWS), Entered(net)
    engine = fused(net, per_forward=2)
    found = engine.losses(P, points, batch)
    for k, c in enumerate((-1.0, 0.5, 1.0)):
        wanted = merged(net, {name: c * P.U[name] @ P.V[name].T}, batch)
        torch.testing.assert_close(found[k], wanted, rtol=0, atol=1e-10)
    assert entered.during(lambda: engine.losses(P, points, batch)) == 0


def steps(net, batch, reuse):
    engine = InPlace(dict(net.named_parameters()), net, reuse_prefix=reuse)
    optimizer = ZoBlock(engine, Draws(0), lr=1e-2, eps=1e-3)
    losses = [optimizer.step(Score(engine, batch)).loss for _ in range(3)]
    engine.flush()
    return losses, [x.detach().clone() for x in net.parameters()]


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_block_wise_steps_keep_every_bit_and_run_fewer_layers(kind, monkeypatch):
    net = deeper(kind, 4, monkeypatch).float()
    entered = Entered(net)
    start = [x.detach().clone() for x in net.parameters()]
    batch, found = keyed(net, ROWS[:2], ROWS[2:]), []
    rows = [entered.during(lambda: found.append(steps(net, batch, reuse=False)))]
    with torch.no_grad():
        for x, before in zip(net.parameters(), start, strict=True):
            x.copy_(before)
    rows.append(entered.during(lambda: found.append(steps(net, batch, reuse=True))))
    assert found[0][0] == found[1][0]
    assert all(map(torch.equal, found[0][1], found[1][1]))
    assert rows[1] < 0.75 * rows[0]


def test_directions_in_some_weights_start_above_the_layers_that_they_leave_alone(monkeypatch):
    net = deeper("opt", 4, monkeypatch)
    engine, batch, entered = (
        InPlace(dict(net.named_parameters()), net),
        keyed(net, ROWS),
        Entered(net),
    )
    last = [name for name in engine.X if ".layers.3." in name]
    z = Gaussian(Draws(0), 0)
    engine.full_rank_losses(Restricted(z, last), [1e-3, -1e-3], batch)
    N = len(ROWS)

    def rows(z):
        return entered.during(lambda: engine.full_rank_losses(z, [1e-3, 0.0], batch))

    assert rows(Restricted(z, last)) == 2 * N
    assert rows(z) == 2 * 4 * N
    assert rows(Restricted(z, last)) == (3 + 2) * N  # everything has moved


class Sharing(nn.Module):
    """Layers of which the last one reads what the first one left behind."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(40, 4)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.head = nn.Linear(4, 1)
        self.layers[0].register_forward_hook(self._leave)
        self.layers[2].register_forward_pre_hook(lambda _, args: (args[0] + self.left,))

    def _leave(self, module, args, output):
        self.left = output

    def forward(self, input_ids):
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x).tanh()
        return self.head(x)[..., 0].mean(1)


def toy(net, rows, passes=1):
    ids = torch.tensor(rows)
    return MicroBatch(
        len(ids),
        ids.numel(),
        lambda copies: sum(net(ids.repeat(copies, 1)) for _ in range(passes)).view(copies, -1),
        key=str(rows),
    )


@pytest.mark.parametrize(
    ("passes", "why"), [(1, "share more than the hidden state"), (2, "several times for one loss")]
)
def test_a_model_for_which_it_would_be_wrong_runs_as_before_and_one_line_says_so(
    passes, why, caplog
):
    net = Sharing().double().eval()
    if passes == 2:
        for module in net.layers:
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()
    x = net.layers[2].weight
    P = Subspace(
        {"layers.2.weight": torch.ones(4, 1).double()}, {"layers.2.weight": x[:1].detach().T}, {}
    )
    points = stacked([along(P, c) for c in (-1.0, 0.5, 1.0)])
    one_pass, batch = toy(net, [[3, 4], [5, 6]]), [toy(net, [[1, 2], [3, 9]], passes)]
    engine = fused(net, per_forward=2)
    before = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())
    with caplog.at_level(logging.INFO):
        if passes == 2:  # the pass that was watched was another one
            engine.losses(P, points, [one_pass])
        found = [engine.losses(P, points, batch) for _ in range(2)]
    wanted = fused(net, per_forward=2, reuse_prefix=False).losses(P, points, batch)
    assert torch.equal(found[0], wanted)
    assert torch.equal(found[1], wanted)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert lines[0].startswith(
        "engine.reuse_prefix: every candidate runs through all layers: Sharing"
    )
    assert why in lines[0]
    after = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())
    assert after == before


def test_a_failure_in_the_middle_leaves_the_model_as_it_was(monkeypatch):
    net = deeper("llama", 4, monkeypatch)
    layer = net.model.layers[1]
    own = partial(type(layer).forward, layer)
    layer.forward = own  # as accelerate does
    batch, calls, fails_at = keyed(net, ROWS), count(), -1
    mlp = net.model.layers[3].mlp

    def fails(module, args):
        if next(calls) == fails_at:
            raise KeyboardInterrupt

    mlp.register_forward_pre_hook(fails)
    plain, engine = left_behind(net), fused(net, per_forward=1)
    P, coordinates, _ = candidates(net, "llama", 2, seed=1, how_many=3)
    wanted = engine.losses(P, coordinates, batch)
    engine.decay(1e-9)
    for stop in range(3):
        calls, fails_at = count(), stop
        with pytest.raises(KeyboardInterrupt):
            engine.losses(P, coordinates, batch)
        assert left_behind(net) == plain
        assert layer.forward is own
    torch.testing.assert_close(engine.losses(P, coordinates, batch), wanted, rtol=0, atol=1e-6)


def test_only_the_newest_rows_states_are_kept(monkeypatch):
    net = deeper("gpt2", 4, monkeypatch)
    engine = fused(net)
    P, coordinates, _ = candidates(net, "gpt2", 2, seed=1, how_many=2)
    first, second = keyed(net, ROWS[:2], ROWS[2:])
    engine.losses(P, coordinates, [first, second])
    assert set(engine._prefix._kept) == {first.key, second.key}
    engine.losses(P, coordinates, [second])
    assert set(engine._prefix._kept) == {second.key}
    engine.losses(*candidates(net, "gpt2", 0, seed=1, how_many=2)[:2], [first])
    assert not engine._prefix._kept
