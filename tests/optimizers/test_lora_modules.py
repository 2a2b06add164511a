"""The low-rank modules of C-LoRA and F-LoRA: where they sit, how they are projected and scaled."""

from __future__ import annotations

from math import sqrt

import pytest
import torch

from lozo_bench.engine.subspace import combination
from lozo_bench.errors import UserError
from lozo_bench.optimizers.lora_modules import lora_modules
from lozo_bench.optimizers.projections import Projection
from lozo_bench.optimizers.queries_keys import attention_layers
from lozo_bench.randomness.draws import Draws

pytestmark = pytest.mark.timeout(60)


def weights(shapes, dtype=torch.float64):
    return Draws(7).normal("W", 0, shapes, dtype=dtype)


SEPARATE = {
    "model.layers.0.self_attn.k_proj.weight": (4, 8),  # two key heads of four
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
}
JOINT = {"transformer.h.0.attn.c_attn.weight": (8, 24)}


def modules(
    shapes, d=20, rank=2, projection="hidden_states", b_init="normal", sigma=1.0, alpha=1.0
):
    X = weights(shapes)
    return X, lora_modules(X, Draws(0), d, rank, alpha, sigma, projection, b_init)


def matrices(layer, z, std):
    """A_Q, B_Q, A_K, B_K of one point, each by a product with its own P, as the paper writes it."""
    parts = z.chunk(4)
    made = [P(part[None])[0] for P, part in zip(layer.projections, parts, strict=True)]
    s = layer.alpha * std / (sqrt(layer.d) * layer.sigma)
    made = [s * x for x in made]
    r = layer.rank
    return [made[0].view(-1, r), made[1].view(r, -1), made[2].view(-1, r), made[3].view(r, -1)]


@pytest.mark.parametrize(
    "names",
    [
        ("roberta.encoder.layer.{}.attention.self.query.weight", "….key.weight"),
        ("model.decoder.layers.{}.self_attn.q_proj.weight", "….k_proj.weight"),
        ("deberta.encoder.layer.{}.attention.self.query_proj.weight", "….key_proj.weight"),
        ("distilbert.transformer.layer.{}.attention.q_lin.weight", "….k_lin.weight"),
    ],
)
def test_queries_and_keys_are_found_by_their_names(names):
    query, key = names
    key = query.rpartition(".weight")[0].rpartition(".")[0] + key.removeprefix("…")
    X = {name.format(i): torch.zeros(6, 4) for i in (0, 1, 10) for name in (query, key)}
    layers = attention_layers(X)
    assert [layer.W_Q.name for layer in layers] == [query.format(i) for i in (0, 1, 10)]
    assert [layer.W_K.name for layer in layers] == [key.format(i) for i in (0, 1, 10)]
    assert (layers[0].W_Q.outputs, layers[0].W_Q.inputs) == (6, 4)


def test_a_model_without_queries_and_keys_is_refused_and_no_model_is_not():
    with pytest.raises(UserError, match="neither pairs such as q_proj and k_proj"):
        attention_layers({"h.0.attn.query_key_value.weight": torch.zeros(12, 4)})
    assert attention_layers({}) == []


def test_weights_that_would_not_be_trained_are_refused():
    X = weights(SEPARATE | {"model.layers.0.self_attn.v_proj.weight": (4, 8)})
    with pytest.raises(UserError, match=r"v_proj\.weight is to be trained, too"):
        attention_layers(X)


def test_modules_add_x_A_B_to_the_outputs_of_queries_and_keys():
    X, (layer,) = modules(SEPARATE)
    Z = Draws(1).normal("z", 0, {"z": (3, 20)}, dtype=torch.float64)["z"]
    P = layer.at(Z, std=0.3)
    chosen = combination(P, torch.eye(3)).C
    q, k = (f"model.layers.0.self_attn.{x}_proj.weight" for x in "qk")
    assert P.U.keys() == P.V.keys() == {q, k}
    x = Draws(2).normal("x", 0, {"x": (5, 8)}, dtype=torch.float64)["x"]
    for i, z in enumerate(Z):
        A_Q, B_Q, A_K, B_K = matrices(layer, z, 0.3)
        for name, A, B in ((q, A_Q, B_Q), (k, A_K, B_K)):
            changed = X[name] + P.U[name] @ chosen[i] @ P.V[name].T
            torch.testing.assert_close(x @ changed.T, x @ X[name].T + x @ A @ B)


def test_in_gpt2_the_modules_fill_their_own_columns_of_c_attn():
    X, (layer,) = modules(JOINT)
    (name,) = X
    Z = Draws(1).normal("z", 0, {"z": (3, 20)}, dtype=torch.float64)["z"]
    P = layer.at(Z, std=0.3)
    chosen = combination(P, torch.eye(3)).C
    for i, z in enumerate(Z):
        A_Q, B_Q, A_K, B_K = matrices(layer, z, 0.3)
        expected = torch.cat([A_Q @ B_Q, A_K @ B_K, torch.zeros(8, 8).double()], dim=1)
        torch.testing.assert_close(P.U[name] @ chosen[i] @ P.V[name].T, expected)


def test_an_incumbent_has_the_bits_of_the_candidate_that_it_was():
    _, (layer,) = modules(SEPARATE)
    Z = Draws(1).normal("z", 0, {"z": (20, 20)}, dtype=torch.float64)["z"]
    together = layer.at(Z, std=0.3).U["model.layers.0.self_attn.q_proj.weight"]
    alone = layer.at(Z[7:8], std=0.3).U["model.layers.0.self_attn.q_proj.weight"]
    assert alone.is_contiguous()  # a product with what a full state restores has the same bits
    assert torch.equal(together[:, 14:16], alone)


@pytest.mark.parametrize(("sigma", "alpha"), [(1.0, 1.0), (0.2, 0.5)])
@pytest.mark.parametrize("b_init", ["normal", "uniform"])
def test_realised_standard_deviations(sigma, alpha, b_init):
    """Of 64 points at width 1024, r = 4, d = 500: 260,000 entries of each matrix."""
    h, r, std = 1024, 4, 0.3
    name = "encoder.layer.{}.attention.self.{}.weight"
    X = {name.format(i, which): torch.zeros(h, h) for i in (0, 1) for which in ("query", "key")}
    first, second = lora_modules(X, Draws(0), 500, r, alpha, sigma, "hidden_states", b_init)
    z = sigma * Draws(1).normal("z", 0, {"z": (64, 500)}, dtype=torch.float64)["z"]
    normal, uniform = alpha * std / 2, sigma / sqrt(3)
    for layer, std_B in ((first, normal), (second, normal if b_init == "normal" else uniform)):
        spreads = [layer.spread(each, std) for each in z]

        def mean_of(key, spreads=spreads):
            return sqrt(sum(spread[key] ** 2 for spread in spreads) / len(spreads))

        assert mean_of("std_A") == pytest.approx(normal, rel=0.02)
        assert mean_of("std_B") == pytest.approx(std_B, rel=0.02)
        assert mean_of("std_dW") == pytest.approx(sqrt(r) * normal * std_B, rel=0.05)


def test_the_spread_of_a_point_is_that_of_its_entries():
    _, (layer,) = modules(SEPARATE)
    z = Draws(1).normal("z", 0, {"z": (20,)}, dtype=torch.float64)["z"]
    A_Q, B_Q, A_K, B_K = matrices(layer, z, 0.3)
    products = torch.cat([(A_Q @ B_Q).flatten(), (A_K @ B_K).flatten()])
    assert layer.spread(z, 0.3) == pytest.approx(
        {
            "std_A": float(torch.cat([A_Q.flatten(), A_K.flatten()]).std(correction=0)),
            "std_B": float(torch.cat([B_Q.flatten(), B_K.flatten()]).std(correction=0)),
            "std_dW": float(products.std(correction=0)),
        }
    )


def test_projections_depend_on_their_key_only():
    z = torch.ones(1, 5, dtype=torch.float64)
    kept, drawn_again = (Projection(Draws(0), "P", 12, 5, "normal", n) for n in (1, 2**26))
    assert kept.keep
    assert not drawn_again.keep
    assert torch.equal(kept(z), drawn_again(z))
    assert torch.equal(kept(z), kept(z))
    assert not torch.equal(kept(z), Projection(Draws(0), "Q", 12, 5, "normal")(z))
    assert not torch.equal(kept(z), Projection(Draws(1), "P", 12, 5, "normal")(z))


def test_a_uniform_projection_is_that_of_torchs_linear_layer():
    P = Projection(Draws(0), "P", 4000, 125, "uniform")
    columns = P(torch.eye(125, dtype=torch.float64)[:20])
    limit = 1 / sqrt(125)
    assert columns.abs().max() < limit
    assert columns.std() == pytest.approx(limit / sqrt(3), rel=0.02)
