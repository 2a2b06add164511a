"""Linear probing: the output layer's rows for the answer's words, solved for on fixed features.

Source: MeZO's large-model code (trainer.py, `--linear_probing`), spec lozo_mezo section 2.6.
Logistic regression tells the answer tokens of the train rows from what the output layer sees before
them; its coefficients become the layer's rows for those tokens. With two tokens, which have one
vector w between them, the rows are -w/2 and +w/2. All other rows stay, as published: for answers
of words that no train row has, that is what makes it poor.

scikit-learn does the regression, with the strength of its l2 penalty chosen by cross-validation
among the train rows. A token with fewer rows than there are folds cannot be in all of them: then
the strength is 1, and the report says 0 folds.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.score import checked
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


class LinearProbe:
    """Solves for the output layer, in one step on all train rows.

    Args:
        X: the output layer's weight [words, d] and, if it has one, its bias [words].
        draws: not used: nothing here is random.
        max_iter: iterations of the solver; published: 5000, with early stopping 1000.
        tol: at which it stops; published: 1e-4, with early stopping 0.01.
        folds: of the cross-validation; published: 5.
    """

    needs = Needs(replayable=False, features=True, steps=1, batch=Stream(batch_size="all"))

    def __init__(
        self,
        X: Engine,
        draws: Draws,
        *,
        max_iter: int = 5000,
        tol: float = 1e-4,
        folds: int = 5,
    ) -> None:
        check_count("max_iter", max_iter)
        check_positive("tol", tol)
        check_count("folds", folds)
        self.X, self.max_iter, self.tol, self.folds = X, max_iter, tol, folds
        self.lr = 0.0

    def step(self, score: Score) -> Report:
        """One forward of all rows and the solution."""
        features, tokens = score.features()
        checked(features.double().mean().view(1, 1))
        weight = next(x for x in self.X.X.values() if x.ndim == 2)
        bias = next((x for x in self.X.X.values() if x.ndim == 1), None)
        words, w, b, folds = self._solve(features, tokens, bias is not None)
        with torch.no_grad():
            weight[words] = w.to(weight)
            if bias is not None:
                bias[words] = b.to(bias)
        logits = features.double() @ w.T + b
        loss = functional.cross_entropy(logits, torch.searchsorted(words, tokens))
        return Report(float(loss), forwards=1, scalars={"folds": folds})

    def _solve(
        self, features: Tensor, tokens: Tensor, intercept: bool
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        """Words [C] in order, their rows [C, d], their biases [C], and the folds that were used."""
        # Imported here because it takes seconds, and no other method needs it.
        from sklearn import linear_model

        words, counts = torch.unique(tokens, return_counts=True)
        if len(words) < 2:
            raise UserError(
                "optimizer=linear_probe: all train rows have the same answer; there is nothing to "
                "tell apart"
            )
        folds = self.folds if self.folds > 1 and int(counts.min()) >= self.folds else 0
        options: dict[str, Any] = {
            "max_iter": self.max_iter, "tol": self.tol, "fit_intercept": intercept,
            "random_state": 0,
        }  # fmt: skip
        library: Any = linear_model  # untyped
        if folds:
            solver = library.LogisticRegressionCV(
                Cs=10, cv=folds, scoring="accuracy", use_legacy_attributes=False, l1_ratios=(0.0,),
                **options,
            )  # fmt: skip
        else:
            solver = library.LogisticRegression(**options)
        with warnings.catch_warnings():
            # Where answers are texts, most of their words stand in few rows; that is no mistake.
            warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
            solver.fit(features.numpy(), tokens.numpy())
        w = torch.from_numpy(np.asarray(solver.coef_, dtype=np.float64))
        b = torch.from_numpy(np.broadcast_to(solver.intercept_, (len(w),)).astype(np.float64))
        if len(words) == 2:
            w, b = torch.cat([-w / 2, w / 2]), torch.cat([-b / 2, b / 2])
        return words, w, b, folds
