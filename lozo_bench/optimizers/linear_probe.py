"""Linear probing: solves for the output layer's rows of the answer tokens, on fixed features.

Source: MeZO's code (github.com/princeton-nlp/MeZO, large_models/trainer.py lines 229-300,
`--linear_probing`). A logistic regression predicts the answer tokens of the train rows from the
features, which are the inputs of the output layer at the positions before these tokens. Its
coefficients become the output layer's rows for the answer tokens. Two tokens have only one
coefficient vector w; their rows are -w/2 and +w/2. As published, all other rows stay as they are.
This is why the method is poor if test answers contain tokens that no train row has.

scikit-learn computes the regression and chooses the strength of its l2 penalty by cross-validation
on the train rows. If a token has fewer rows than there are folds, it cannot be in all folds; then
the strength is 1 and the report says 0 folds.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lozo_bench.engine.finite import require_finite
from lozo_bench.errors import UserError
from lozo_bench.optimizers.base import (
    Engine,
    Needs,
    Report,
    Score,
    Stream,
    check_count,
    check_positive,
)
from lozo_bench.randomness.draws import Draws


class LinearProbe:
    """Solves for the output layer in one step on all train rows.

    Args:
        engine: holds the output layer's weight [tokens, d] and, if there is one, its bias [tokens].
        draws: not used; nothing here is random.
        max_iter: largest number of the solver's iterations; published: 5000, with early stopping
            1000.
        tol: tolerance at which the solver stops; published: 1e-4, with early stopping 0.01.
        folds: number of folds of the cross-validation; published: 5.
    """

    needs = Needs(replayable=False, features=True, steps=1, batch=Stream(batch_size="all"))

    def __init__(
        self,
        engine: Engine,
        draws: Draws,
        *,
        max_iter: int = 5000,
        tol: float = 1e-4,
        folds: int = 5,
    ) -> None:
        check_count("max_iter", max_iter)
        check_positive("tol", tol)
        check_count("folds", folds)
        self.engine, self.max_iter, self.tol, self.folds = engine, max_iter, tol, folds
        self.lr = 0.0

    def step(self, score: Score) -> Report:
        """Make the one step: one forward pass of all rows, and the solution.

        Raises:
            NonFiniteLossError: the features are not finite.
            UserError: all train rows have the same answer.
        """
        features, tokens = score.features()  # [N, d], [N]
        require_finite(features.double().mean().view(1, 1))
        weight = next(x for x in self.engine.X.values() if x.ndim == 2)
        bias = next((x for x in self.engine.X.values() if x.ndim == 1), None)
        classes, w, b, folds = self._solve(features, tokens, bias is not None)
        with torch.no_grad():
            weight[classes] = w.to(weight)
            if bias is not None:
                bias[classes] = b.to(bias)
        logits = features.double() @ w.T + b
        loss = functional.cross_entropy(logits, torch.searchsorted(classes, tokens))
        return Report(float(loss), forwards=1, scalars={"folds": folds})

    def _solve(
        self, features: Tensor, tokens: Tensor, intercept: bool
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        """Fit the logistic regression.

        Returns:
            The answer tokens [C] in ascending order, their rows [C, d], their biases [C], and the
            number of folds that were used.
        """
        # Imported here because it takes seconds, and no other method needs it.
        from sklearn import linear_model

        classes, counts = torch.unique(tokens, return_counts=True)
        if len(classes) < 2:
            raise UserError(
                "optimizer=linear_probe: all train rows have the same answer; allowed: train rows "
                "with at least two different answers"
            )
        folds = self.folds if self.folds > 1 and int(counts.min()) >= self.folds else 0
        options: dict[str, Any] = {
            "max_iter": self.max_iter, "tol": self.tol, "fit_intercept": intercept,
            "random_state": 0,
        }  # fmt: skip
        library: Any = linear_model  # scikit-learn has no type annotations
        if folds:
            solver = library.LogisticRegressionCV(
                Cs=10, cv=folds, scoring="accuracy", use_legacy_attributes=False, l1_ratios=(0.0,),
                **options,
            )  # fmt: skip
        else:
            solver = library.LogisticRegression(**options)
        with warnings.catch_warnings():
            # If the answers are free texts, most of their tokens are in few rows; this is expected.
            warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
            solver.fit(features.numpy(), tokens.numpy())
        w = torch.from_numpy(np.asarray(solver.coef_, dtype=np.float64))
        b = torch.from_numpy(np.broadcast_to(solver.intercept_, (len(w),)).astype(np.float64))
        if len(classes) == 2:
            w, b = torch.cat([-w / 2, w / 2]), torch.cat([-b / 2, b / 2])
        return classes, w, b, folds
