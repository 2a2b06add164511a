"""Operations on `Versions`, each compared with the same operation on every version by itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lozo_bench.engine.versions import ForwardPass, LowRankChange, VectorChange, Versions
from lozo_bench.errors import UserError
from lozo_bench.randomness.draws import Draws

G, ROWS, LENGTH = 3, 6, 4


def drawn(dtype=torch.float64, **shapes):
    return Draws(0).normal("test", 0, shapes, dtype=dtype)


def matrix(m, n, keep=1.0):
    """Return versions of an [m, n] matrix, and the list of the matrices that they represent."""
    t = drawn(W=(m, n), U=(m, 3), V=(n, 2), C=(G, 3, 2))
    made = Versions.of(t["W"], LowRankChange(t["U"], t["V"], t["C"], keep), ForwardPass(G, ROWS))
    return made, [keep * t["W"] + t["U"] @ t["C"][g] @ t["V"].T for g in range(G)]


def vector(d, name="p"):
    t = drawn(**{name: (d,), f"{name}z": (d, 2), f"{name}s": (G, 2)})
    p, z, s = t.values()
    return Versions.of(p, VectorChange(z, s), ForwardPass(G, ROWS)), [
        p + z @ s[g] for g in range(G)
    ]


def activations(*size):
    return drawn(x=(ROWS, LENGTH, *size))["x"]


def assert_by_version(got, x, one):
    wanted = torch.cat([one(part, g) for g, part in enumerate(x.chunk(G))])
    assert type(got) is Tensor
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def test_linear():
    (W, Ws), (b, bs), x = matrix(5, 7), vector(5), activations(7)
    assert_by_version(F.linear(x, W, b), x, lambda x, g: F.linear(x, Ws[g], bs[g]))
    assert_by_version(F.linear(x, W), x, lambda x, g: F.linear(x, Ws[g]))
    p = drawn(p=(5,))["p"]
    assert_by_version(F.linear(x, W, p), x, lambda x, g: F.linear(x, Ws[g], p))
    plain = drawn(W=(5, 7))["W"]
    assert_by_version(F.linear(x, plain, b), x, lambda x, g: F.linear(x, plain, bs[g]))


def test_weight_decay_of_a_linear_layer_does_not_scale_the_bias():
    (W, Ws), (b, bs), x = matrix(5, 7, keep=0.5), vector(5), activations(7)
    assert_by_version(F.linear(x, W, b), x, lambda x, g: F.linear(x, Ws[g], bs[g]))


def test_addmm_as_used_by_gpt2():
    (W, Ws), (b, bs), x = matrix(7, 5), vector(5), activations(7).view(-1, 7)
    assert_by_version(torch.addmm(b, x, W), x, lambda x, g: x @ Ws[g] + bs[g])


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_embedding(keep):
    W, Ws = matrix(9, 5, keep)
    ids = torch.arange(ROWS * LENGTH).view(ROWS, LENGTH) % 9
    assert_by_version(F.embedding(ids, W), ids, lambda ids, g: F.embedding(ids, Ws[g]))


def test_position_ids_shared_by_all_rows_are_expanded():
    W, Ws = matrix(9, 5)
    ids = torch.arange(LENGTH)[None]
    every = ids.expand(ROWS, LENGTH)
    assert_by_version(F.embedding(ids, W), every, lambda ids, g: F.embedding(ids, Ws[g]))


def test_norms():
    (w, ws), (b, bs), x = vector(7, "w"), vector(7, "b"), activations(7)
    assert_by_version(
        F.layer_norm(x, (7,), w, b), x, lambda x, g: F.layer_norm(x, (7,), ws[g], bs[g])
    )
    assert_by_version(F.rms_norm(x, (7,), w), x, lambda x, g: F.rms_norm(x, (7,), ws[g]))


def test_elementwise_operations_without_a_rule():
    (w, ws), x = vector(7), activations(7)
    assert_by_version(w * x, x, lambda x, g: ws[g] * x)
    assert_by_version(x - w, x, lambda x, g: x - ws[g])
    assert_by_version((1.0 + w.double()) * x, x, lambda x, g: (1 + ws[g]) * x)


def test_a_matrix_operation_without_a_rule_is_computed_version_by_version():
    (W, Ws), x = matrix(5, 7), activations(7)
    assert_by_version(torch.einsum("rtn,mn->rtm", x, W), x, lambda x, g: x @ Ws[g].T)


def test_selected_rows_of_a_weight_keep_their_versions():
    (W, Ws), (b, bs), x = matrix(9, 7), vector(9), activations(7)
    pick = torch.tensor([4, 1])
    assert_by_version(
        F.linear(x, W[pick], b[pick]), x, lambda x, g: F.linear(x, Ws[g][pick], bs[g][pick])
    )


def test_shape_dtype_and_device_are_those_of_the_parameter():
    (W, _), (b, _) = matrix(5, 7), vector(3)
    assert (W.shape, W.ndim, W.size(1), W.dtype) == ((5, 7), 2, 7, torch.float64)
    assert (b.numel(), b.device.type) == (3, "cpu")


def test_operations_that_several_versions_do_not_support_are_refused_by_name():
    W, _ = matrix(5, 7)
    with pytest.raises(UserError, match=r"uses a weight in torch's float.*per_forward=1.*in_place"):
        W.float()
    with pytest.raises(UserError, match=r"uses a weight in torch's stack.*per_forward=1.*in_place"):
        torch.stack([W, W])


def test_a_single_version_supports_every_operation():
    (W, Ws), (_, bs) = matrix(5, 7), vector(5)
    one = Versions.of(W.as_subclass(Tensor), LowRankChange(*(f[:1] if f.ndim == 3 else f for f in (
        W.change.U, W.change.V, W.change.C))), ForwardPass(1, ROWS))  # fmt: skip
    torch.testing.assert_close(one.float(), Ws[0].float())
    torch.testing.assert_close(torch.stack([one, one]), torch.stack([Ws[0], Ws[0]]))
    torch.testing.assert_close(one.T @ bs[0], Ws[0].T @ bs[0])


def test_a_weight_used_as_an_activation_keeps_its_single_version():
    """DeBERTa normalizes its relative embeddings, whose perturbation must not be lost."""
    (W, Ws), (w, ws), (b, bs) = matrix(5, 7), vector(7, "w"), vector(7, "b")
    one = Versions.of(
        W.as_subclass(Tensor),
        LowRankChange(W.change.U, W.change.V, W.change.C[:1]),
        ForwardPass(1, ROWS),
    )
    first = [
        Versions.of(
            v.as_subclass(Tensor), VectorChange(v.change.z, v.change.s[:1]), ForwardPass(1, ROWS)
        )
        for v in (w, b)
    ]
    wanted = F.layer_norm(Ws[0], (7,), ws[0], bs[0])
    torch.testing.assert_close(F.layer_norm(one, (7,), *first), wanted)
    with pytest.raises(UserError, match=r"layer_norm.*per_forward=1"):
        F.layer_norm(W, (7,), w, b)


def test_arguments_may_be_passed_by_name():
    (W, Ws), (b, bs), x = matrix(5, 7), vector(5), activations(7)
    got = F.linear(input=x, weight=W, bias=b)
    assert_by_version(got, x, lambda x, g: F.linear(x, Ws[g], bs[g]))


def test_rows_that_cannot_be_assigned_to_versions_are_refused():
    W, _ = matrix(5, 7)
    with pytest.raises(
        UserError, match=r"^engine\.candidates_per_forward: .*4 rows, but the 3 candidates"
    ):
        F.linear(torch.ones(4, 7).double(), W)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_small_change_of_a_half_precision_norm_weight_is_not_lost(dtype):
    """1 + 1e-3 rounds to 1 in bfloat16, but the activation scaled by it differs."""
    w = Versions.of(
        torch.ones(8, dtype=dtype),
        VectorChange(torch.ones(8, 1), torch.tensor([[1e-3]])),
        ForwardPass(1, 1),
    )
    x = torch.linspace(-4, 4, 8).to(dtype)[None]
    got = F.layer_norm(x, (8,), w, None)
    normal = F.layer_norm(x, (8,))
    torch.testing.assert_close(got, (normal.float() * (1 + 1e-3)).to(dtype), rtol=0, atol=0)
    assert got.dtype is dtype


def test_a_table_of_relative_positions_is_not_taken_for_a_batch():
    """MPNet looks up a [T, T] table; T may be a multiple of the number of candidates."""
    W, _ = matrix(9, 5)
    with pytest.raises(UserError, match=r"has 9 rows, but the 3 candidates together have 6"):
        F.embedding(torch.zeros(9, 9, dtype=torch.long), W)
