"""What has been gathered, when it is written, and what rounding makes of it."""

from __future__ import annotations

import pytest
import torch

from lozo_bench.engine import pending
from lozo_bench.engine.fold import Folder
from lozo_bench.engine.pending import PendingUpdate
from lozo_bench.engine.subspace import Coordinates, Subspace, along
from lozo_bench.engine.terms import LowRankTerm
from lozo_bench.randomness.draws import Draws


def point(max_rank, dtype=torch.float64, rounding="nearest"):
    drawn = Draws(0).normal("W", 0, {"w": (6, 5), "b": (5,)}, dtype=torch.float64)
    X = {name: (0.02 * x).to(dtype) for name, x in drawn.items()}
    return PendingUpdate(X, Folder(rounding, Draws(0)), max_rank)


def period(t, dtype=torch.float64):
    """A V, and the directions of its steps."""
    f = Draws(1).normal("P", t, {"V": (5, 2), "U0": (6, 2), "U1": (6, 2), "z": (5, 1)}, dtype=dtype)
    V = {"w": f["V"]}
    return [Subspace({"w": f[u]}, V, {"b": f["z"]}) for u in ("U0", "U1")]


def value(at):
    """The matrix and the vector as they are, gathered terms included."""
    w = at.keep * at.X["w"].double()
    for term in at.terms:
        w = w + term.U["w"].double() @ term.C @ term.V["w"].double().T
    return w, at.X["b"].double() + at.a["b"].double()


def walk(at, periods=3):
    wanted = value(at)
    for t in range(periods):
        for P in period(t, at.a["b"].dtype):
            at.move(P, along(P, 0.3, 0.1))
            w, b = wanted
            P_w = P.U["w"].double() @ P.V["w"].double().T
            wanted = w + 0.3 * P_w, b + 0.1 * P.z["b"][:, 0].double()
    return wanted


@pytest.mark.parametrize(
    ("max_rank", "periods", "kept"),
    [(0, 2, 0), (2, 2, 1), (2, 3, 0), (3, 3, 0), (4, 3, 2), (4, 4, 0), (99, 4, 3)],
)
def test_closed_periods_are_kept_up_to_the_rank_and_folded_together_above_it(
    max_rank, periods, kept
):
    at = point(max_rank)
    wanted = walk(at, periods)
    assert len(at.closed) == kept
    assert at.open is not None
    for got, want in zip(value(at), wanted, strict=True):
        torch.testing.assert_close(got, want)


def test_while_a_period_is_open_the_weights_are_not_written():
    at = point(0)
    before = at.X["w"].clone()
    for P in period(0):
        at.move(P, along(P, 0.3))
    assert torch.equal(at.X["w"], before)


def test_settling_writes_everything():
    at = point(99)
    wanted = walk(at)
    at.flush()
    assert at.terms == []
    torch.testing.assert_close(at.X["w"], wanted[0])
    torch.testing.assert_close(at.X["b"], wanted[1])


def test_decay_shrinks_written_and_unwritten_alike_and_spares_vectors():
    at = point(2)
    walk(at)
    w, b = value(at)
    at.decay(0.25)
    torch.testing.assert_close(value(at)[0], 0.75 * w)
    at.flush()
    torch.testing.assert_close(at.X["w"], 0.75 * w)
    torch.testing.assert_close(at.X["b"], b)


def test_what_is_attached_counts_and_is_replaced_by_the_next():
    at = point(0)
    w, _ = value(at)
    first, second = period(0)
    at.set_adapter(first, along(first, 1.0))
    at.set_adapter(second, Coordinates(2 * torch.eye(2).double(), torch.empty(0).double()))
    torch.testing.assert_close(value(at)[0], w + 2 * second.U["w"] @ second.V["w"].T)


def test_a_vector_in_half_precision_gathers_steps_that_its_own_type_would_lose():
    at = point(0, torch.bfloat16)
    before = at.X["b"].clone()
    P = Subspace({}, {}, {"b": torch.ones(5, 1)})
    for _ in range(1000):
        at.move(P, along(P, 1e-6))
    assert torch.equal(at.X["b"], before)
    torch.testing.assert_close(value(at)[1], before.double() + 1e-3, rtol=0, atol=1e-7)
    at.flush()
    assert (at.X["b"] != before).any()
    torch.testing.assert_close(value(at)[1], before.double() + 1e-3, rtol=0, atol=1e-7)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "residual"])
def test_a_state_goes_on_as_if_nothing_had_happened(rounding):
    """The state knows open and closed periods, residuals, and how many folds there were."""
    ends = []
    for interrupted in (False, True):
        at = point(3, torch.bfloat16, rounding)
        walk(at)
        if interrupted:
            state, at = at.state(), point(3, torch.bfloat16, rounding)
            at.load_state(state)
        for P in (*period(7, torch.float32), *period(8, torch.float32)):
            at.move(P, along(P, 0.01))
        at.flush()
        ends.append(at.state())
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_a_gpu_folds_periods_of_different_matrices_and_float64_factors_as_they_are():
    """A GPU puts the factors of periods side by side, if they are of the same matrices."""
    drawn = Draws(0).normal("W", 0, dict.fromkeys("vw", (6, 5)), dtype=torch.float64)
    for periods in (("v", "w"), ("vw", "vw"), ("v", "vw")):
        X = {name: x.clone() for name, x in drawn.items()}
        wanted = {name: x.clone() for name, x in drawn.items()}
        at = PendingUpdate(X, Folder("nearest", Draws(0)), 99)
        for t, names in enumerate(periods):
            U, V = (
                Draws(t).normal(role, 0, dict.fromkeys(names, (size, 2)), dtype=torch.float64)
                for role, size in (("U", 6), ("V", 5))
            )
            P = Subspace(U, V, {})
            at.move(P, along(P, 0.3))
            for name in names:
                wanted[name] += 0.3 * U[name] @ V[name].T
        at.kind = (torch.device("cuda"), torch.float64)
        at.flush()
        for name, x in X.items():
            torch.testing.assert_close(x, wanted[name], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("size", [1, 200, 10**6], ids=["one by one", "some", "all"])
def test_the_columns_of_several_matrices_at_once_are_those_of_each(monkeypatch, size):
    monkeypatch.setattr(pending, "_COLUMN_BYTES", size)
    names = [f"w{i}" for i in range(9)]
    terms = []
    for t in range(3):
        U, V = (
            Draws(t).normal(role, 0, {name: (i + 3, 2) for i, name in enumerate(names)})
            for role in ("U", "V")
        )
        U, V = ({name: x.bfloat16() for name, x in each.items()} for each in (U, V))
        terms.append(LowRankTerm(U, V, torch.eye(2, dtype=torch.float64)))
    columns = pending._Columns(terms)
    for name in names[::2]:  # not every matrix has to be asked for
        A, V = columns.of(name)
        assert torch.equal(A, torch.cat([term.U[name] for term in terms], dim=1).float())
        assert torch.equal(V, torch.cat([term.V[name] for term in terms], dim=1).float())
        assert A.stride(0) == V.stride(0) == 1
