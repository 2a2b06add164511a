"""The linear probe sets the rows of the answer tokens to the regression's and changes no others."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from lozo_bench.engine import Draws, InPlace
from lozo_bench.engine.finite import NonFiniteLossError
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.errors import UserError
from lozo_bench.optimizers.linear_probe import LinearProbe

TOKENS, WIDTH = 12, 3


def blobs(tokens, each):
    """Return features, clustered around one corner for each token, and the tokens."""
    dropout = Draws(1).normal("noise", 0, {"x": (len(tokens) * each, WIDTH)}, dtype=torch.float64)
    labels = torch.tensor(tokens).repeat_interleave(each)
    corners = torch.eye(WIDTH, dtype=torch.float64)[torch.arange(len(tokens))]
    return 3 * corners.repeat_interleave(each, 0) + 0.3 * dropout["x"], labels


def probe(features, tokens, bias=True, **options):
    engine = InPlace({"w": torch.ones(TOKENS, WIDTH).double()})
    if bias:
        engine.X["b"] = torch.ones(TOKENS).double()
    part = MicroBatch(len(tokens), 1, lambda copies: torch.zeros(copies, len(tokens)),
                lambda: (features, tokens))  # fmt: skip
    report = LinearProbe(engine, Draws(0), **options).step(Score(engine, [part]))
    return engine.X, report


def test_rows_of_the_answer_tokens_are_solved_for_and_all_others_stay():
    features, tokens = blobs([4, 7, 9], each=8)
    X, report = probe(features, tokens)
    logits = features @ X["w"].T + X["b"]
    assert torch.equal(
        logits[:, [4, 7, 9]].argmax(1), torch.searchsorted(torch.tensor([4, 7, 9]), tokens)
    )
    others = [token for token in range(TOKENS) if token not in (4, 7, 9)]
    assert torch.equal(X["w"][others], torch.ones(len(others), WIDTH).double())
    assert torch.equal(X["b"][others], torch.ones(len(others)).double())
    chosen = logits[:, [4, 7, 9]].log_softmax(1)
    labels = torch.searchsorted(torch.tensor([4, 7, 9]), tokens)
    assert report.loss == pytest.approx(-float(chosen.gather(1, labels[:, None]).mean()))
    assert (report.forwards, report.scalars["folds"]) == (1, 5)


def test_each_of_two_tokens_gets_half_of_the_one_coefficient_vector():
    features, tokens = blobs([2, 5], each=4)
    X, report = probe(features, tokens)
    assert report.scalars["folds"] == 0  # a token with four rows cannot be in five folds
    model = LogisticRegression(max_iter=5000, tol=1e-4, random_state=0)
    model.fit(features.numpy(), tokens.numpy())
    w, b = torch.from_numpy(model.coef_[0]), float(model.intercept_[0])
    torch.testing.assert_close(X["w"][2], -w / 2)
    torch.testing.assert_close(X["w"][5], w / 2)
    assert float(X["b"][5]) == pytest.approx(b / 2)
    assert float(X["b"][2]) == pytest.approx(-b / 2)


def test_a_layer_without_a_bias_is_solved_for_without_one():
    features, tokens = blobs([2, 5, 6], each=6)
    X, _ = probe(features, tokens, bias=False)
    assert set(X) == {"w"}
    chosen = (features @ X["w"][[2, 5, 6]].T).argmax(1)
    assert torch.equal(torch.tensor([2, 5, 6])[chosen], tokens)


def test_float32_features_are_solved_for_too():
    features, tokens = blobs([2, 5], each=4)
    X, report = probe(features.float(), tokens)
    assert float(X["w"][5] @ features[-1] + X["b"][5]) > float(X["w"][2] @ features[-1] + X["b"][2])
    assert report.loss < 0.7


def test_a_single_answer_is_refused():
    features, tokens = blobs([2], each=6)
    with pytest.raises(UserError, match="same answer"):
        probe(features, tokens)


def test_features_that_are_not_finite_change_nothing():
    features, tokens = blobs([2, 5], each=6)
    engine = InPlace({"w": torch.ones(TOKENS, WIDTH).double()})
    part = MicroBatch(
        12, 1, lambda copies: torch.zeros(copies, 12), lambda: (features * torch.nan, tokens)
    )
    with pytest.raises(NonFiniteLossError):
        LinearProbe(engine, Draws(0)).step(Score(engine, [part]))
    assert torch.equal(engine.X["w"], torch.ones(TOKENS, WIDTH).double())
