"""Versions that are formed before a product give what versions beside it give."""

from __future__ import annotations

from operator import attrgetter

import pytest
import torch
from models import model, part

from lozo_bench.engine import formed, versions
from lozo_bench.engine.fold import Folder
from lozo_bench.engine.formed import formed_now
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.prepared import PreparedMatrix
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.subspace import along, stacked
from lozo_bench.engine.versions import Versions
from lozo_bench.optimizers.low_rank import LowRankDirections
from lozo_bench.randomness.draws import Draws

KINDS = ["opt", "roberta", "gpt2", "llama"]


def fused(net, **options):
    return Fused(net, dict(net.named_parameters()), Folder("nearest", Draws(0)), **options)


def matrix(m=6, n=5, k=3, G=1, scratch=None):
    """Return the versions of a random matrix, none of them formed."""
    drawn = torch.Generator().manual_seed(0)
    right, left = (
        torch.randn(*shape, generator=drawn, dtype=torch.float64) for shape in ((k, n), (G, k, m))
    )
    return PreparedMatrix(right, left, torch.zeros(k, dtype=torch.float64), None, scratch=scratch)


def losses(kind, *, per_forward=1, keep=1.0):
    """Return the losses of three candidates and of an evaluation, and the evaluation's weights."""
    net = model(kind)
    made = fused(net, per_forward=per_forward)
    P = LowRankDirections(made.X, Draws(1), 2, 3).draw(0)
    made.move(P, along(P, 0.02))
    made.decay(1 - keep)
    points = stacked([along(P, 0.05), along(P, -0.05), along(P, 0.1)])
    found = made.losses(P, points, [part(net)])
    with torch.no_grad(), made.applied():
        evaluated = part(net).losses(1)
        weights = [attrgetter(name)(net) for name in made.X]
    return torch.cat([found, evaluated.cpu()]), weights


def changes_of(weights):
    """Return how the versions of the matrices that are not plain tensors are computed."""
    changes = [w.change for w in weights if isinstance(w, Versions)]
    return [change for change in changes if isinstance(change, PreparedMatrix)]


def form_nothing(monkeypatch):
    monkeypatch.setattr(formed, "SMALL", 0)
    monkeypatch.setattr(versions, "is_worth_forming", lambda change, tokens: False)


@pytest.mark.parametrize("keep", [1.0, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_small_matrices_are_formed_and_the_losses_are_the_same(kind, keep, monkeypatch):
    with monkeypatch.context() as patch:
        form_nothing(patch)
        wanted, weights = losses(kind, keep=keep)
        assert len(changes_of(weights)) == sum(w.ndim == 2 for w in weights)
    for per_forward in (1, 2):
        found, weights = losses(kind, per_forward=per_forward, keep=keep)
        assert not any(isinstance(w, Versions) for w in weights)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_matrices_are_formed_when_they_are_needed_and_the_losses_are_the_same(kind, monkeypatch):
    wanted, _ = losses(kind, keep=0.9)
    made = []

    def counted(W, change, keep):
        made.append(W.numel())
        return formed_now(W, change, keep)

    monkeypatch.setattr(formed, "KEPT", 0)
    monkeypatch.setattr(formed, "LARGEST", 600)  # less than the embeddings have
    monkeypatch.setattr(versions, "formed_now", counted)
    found, weights = losses(kind, keep=0.9)
    assert {len(change.scratch) for change in changes_of(weights)} == {512}
    assert bool(made) == (kind != "gpt2")  # whose matrices are multiplied by another function
    assert set(made) <= {128, 256, 512}
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def test_matrices_are_formed_one_after_the_other_in_the_same_memory():
    change = matrix(m=7, n=5, scratch=torch.full((50,), torch.nan, dtype=torch.float64))
    W = torch.randn(7, 5, dtype=torch.float64)
    version = formed_now(W, change, keep=0.5)
    torch.testing.assert_close(version, 0.5 * W + change.left[0].T @ change.right)
    assert formed_now(W, change, keep=1).data_ptr() == version.data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_nothing_is_formed_in_half_precision(dtype):
    net = model("opt", dtype=dtype)
    made = fused(net)
    P = LowRankDirections(made.X, Draws(1), 2, 3).draw(0)
    weights, _ = made._packed.versions(P, stacked([along(P, 0.1)]))
    changes = changes_of(weights.values())
    assert len(changes) == sum(w.ndim == 2 for w in weights.values())
    assert all(change.formed is None and change.scratch is None for change in changes)


@pytest.mark.parametrize(
    ("m", "n", "tokens", "worth"),
    [
        (512, 512, 1, True),  # 2^18 elements are small
        (513, 512, 1, False),
        (1024, 1024, 1023, False),  # 2 m n / (m + n) = 1024
        (1024, 1024, 1024, True),
        (4096, 1024, 1638, False),  # 1638.4
        (4096, 1024, 1639, True),
    ],
)
@torch.no_grad()
def test_forming_is_worth_it_for_small_matrices_and_many_tokens(m, n, tokens, worth):
    change = matrix(m, n, k=1, scratch=torch.empty(2**22, device="meta"))
    assert formed.is_worth_forming(change, tokens) == worth


def test_scratch_is_not_used_where_a_backward_pass_may_follow():
    change = matrix(scratch=torch.empty(30))
    assert torch.is_grad_enabled()
    assert not formed.is_worth_forming(change, 1000)


def test_kept_and_scratch_memory_are_bounded(monkeypatch):
    """Of 16x16 matrices, as many are kept as fit; the others share memory, the largest has none."""
    sizes = [(16, 16)] * 4 + [(16, 40)]
    net = torch.nn.Sequential(*[torch.nn.Linear(*size, bias=False) for size in sizes]).eval()
    monkeypatch.setattr(formed, "KEPT", 2 * 256 + 100)
    monkeypatch.setattr(formed, "LARGEST", 300)
    made = fused(net)
    P = LowRankDirections(made.X, Draws(1), 2, 3).draw(0)
    weights, _ = made._packed.versions(P, stacked([along(P, 0.1)]))
    plain = [not isinstance(weights[name], Versions) for name in made.X]
    assert plain == [True, True, False, False, False]
    scratches = [change.scratch for change in changes_of(weights.values())]
    assert [len(scratch) for scratch in scratches] == [256, 256, 256]
    assert len({scratch.data_ptr() for scratch in scratches}) == 1
    with torch.no_grad():
        worth = [formed.is_worth_forming(change, 1) for change in changes_of(weights.values())]
    assert worth == [True, True, False]


def assign(x):
    x.data = x.data + 1


def add_to_data(x):
    x.data.add_(1)


def add(x):
    x.detach().add_(1)


@pytest.mark.parametrize("write", [assign, add_to_data, add])
def test_what_others_write_to_the_weights_between_two_steps_counts(write):
    """An assignment gives x other memory, and a write to `x.data` leaves its version as it is."""
    net = model("opt")
    made = fused(net)
    P = LowRankDirections(made.X, Draws(1), 2, 3).draw(0)
    points, batch = stacked([along(P, 0.05), along(P, -0.05)]), [part(net)]
    made.losses(P, points, batch)
    for x in made.X.values():
        write(x)
    wanted = fused(net).losses(P, points, batch)
    torch.testing.assert_close(made.losses(P, points, batch), wanted, rtol=1e-12, atol=0)


def test_a_vector_in_half_precision_beside_formed_matrices_keeps_its_dtype():
    net = model("opt", dtype=torch.float32)
    norm = net.model.decoder.layers[0].final_layer_norm.to(torch.bfloat16)
    made = fused(net)
    P = LowRankDirections(made.X, Draws(1), 2, 3).draw(0)
    made.move(P, along(P, 0.1))
    with made.applied():
        assert norm.weight.dtype == norm.bias.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", [torch.nn.LayerNorm, torch.nn.RMSNorm])
@pytest.mark.parametrize("formed_elements", [0, 2**18])
@pytest.mark.parametrize("per_forward", [1, 2])
def test_norms_over_two_dimensions(kind, formed_elements, per_forward, monkeypatch):
    monkeypatch.setattr(formed, "SMALL", formed_elements)
    norm = kind((3, 5), eps=1e-5, dtype=torch.float64).eval()
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    made = fused(norm, per_forward=per_forward)
    P = LowRankDirections(made.X, Draws(1), 2, 3).draw(0)
    points = stacked([along(P, 0.05), along(P, -0.05)])

    def of_rows(copies):
        return norm(x.repeat(copies, 1, 1)).sum((1, 2)).view(copies, len(x))

    batch = [MicroBatch(len(x), len(x), of_rows)]
    found = made.losses(P, points, batch)
    torch.testing.assert_close(found, InPlace(made.X, norm).losses(P, points, batch))


def test_rows_of_a_part_of_the_versions_are_looked_up():
    change = matrix(m=6, n=5, G=2)
    W = torch.randn(6, 5, dtype=torch.float64)
    each = torch.stack([W + left.T @ change.right for left in change.left])
    ids = torch.tensor([[0, 3], [2, 1]])
    found = formed.embedded(ids, each[:, 2:])
    torch.testing.assert_close(found, torch.stack([each[0, 2:][ids[0]], each[1, 2:][ids[1]]]))
